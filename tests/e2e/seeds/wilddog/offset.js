var serverTsRef = new Wilddog("https://samplechat.wilddogio.com/.info/serverTimeOffset");
serverTsRef.on('value',function(snapshot){
  var offset = snapshot.val();
  serverTime = (new Date).getTime() + offset ; // 获取当前服务端时间
})
