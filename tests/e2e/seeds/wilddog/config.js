var config = {
  authDomain: "<SyncAppID>.wilddog.com",
  syncURL: "https://<SyncAppID>.wilddogio.com"
};
wilddog.initializeApp(config);
