// 记录客户端在线状态的节点
var onlineRef = wilddog.sync().ref("/users/status");

// 客户端在线，将状态更改为 online（具体逻辑省略）
onlineRef.child(uid).set("online");

// 注册离线事件：客户端离线时，将状态更改为 offline（具体逻辑省略）
onlineRef.child(uid).onDisconnect().set("offline");
