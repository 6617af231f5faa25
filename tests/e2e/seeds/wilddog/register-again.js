// 监听连接状态
var connectedRef = wilddog.sync().ref("/.info/connected");
connectedRef.on("value", function(snap) {
  if (snap.val() === true) {
    console.log("connected");
    // 当连接成功时，重新注册离线事件
    var presenceRef = wilddog.sync().ref("disconnectmessage");
    presenceRef.onDisconnect().set("I disconnected!");
  } else {
    console.log("not connected");
  }
});
