onlineRef.child(uid).on("value", function(snap) {
  if (snap.val() === "online") {
    console.log("current user online");
  } else if (snap.val() === "offline") {
    console.log("current user offline");
    // 一旦监听到当前用户是离线状态，但实际上是在线状态，则修正用户的在线状态
    onlineRef.child(uid).set("online");
  } else {
    console.log("other status");
  }
});
