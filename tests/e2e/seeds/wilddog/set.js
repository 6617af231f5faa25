var presenceRef = new Wilddog('https://samplechat.wilddogio.com/disconnectmessage');
// 当客户端连接断开时，写入一个字符串
presenceRef.onDisconnect().set("I disconnected!");
