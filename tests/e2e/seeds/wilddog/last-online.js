var userLastOnlineRef = new Wilddog("https://samplechat.wilddogio.com/users/joe/lastOnline");
userLastOnlineRef.onDisconnect().set(Wilddog.ServerValue.TIMESTAMP);
