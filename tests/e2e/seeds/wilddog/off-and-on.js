var connectedRef = new Wilddog("https://samplechat.wilddogio.com/.info/connected");
// 监听连接状态
connectedRef.on("value", function(snap) {
  if (snap.val() === true) {
    console.log("connected");
  } else {
    console.log("I disconnected");
  }
});

setTimeout(function(){
  // 断开连接
  Wilddog.goOffline(); 
  setTimeout(function(){
    // 重新建连
    Wilddog.goOnline();
  },3000);
},3000);
