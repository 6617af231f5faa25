// Credentials of every kind, made here and for nothing but these tests.

import { createHmac, generateKeyPairSync, sign } from "node:crypto";

import { Record } from "./until.mjs";

export const PROJECT = "demo";
export const SECRET = "a-database-secret-of-forty-characters-00";
export const ADMIN_TOKEN = "an-admin-token-that-signs-nothing-at-all";

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
export const now = () => Math.floor(Date.now() / 1000);

/** Somebody who signs with RS256. */
export class Signer {
  #keys = generateKeyPairSync("rsa", { modulusLength: 2048 });

  constructor(kid = "test-key") {
    this.kid = kid;
  }

  /** Its key set. */
  get jwks() {
    const key = { ...this.#keys.publicKey.export({ format: "jwk" }), kid: this.kid, alg: "RS256", use: "sig" };
    return JSON.stringify({ keys: [key] });
  }

  token(claims) {
    const text = `${part({ alg: "RS256", kid: this.kid, typ: "JWT" })}.${part(claims)}`;
    return `${text}.${sign("sha256", Buffer.from(text), this.#keys.privateKey).toString("base64url")}`;
  }

  /** An ID token as Firebase Authentication makes them. */
  idToken(uid, lasts = 3600, more = {}) {
    const firebase = { identities: {}, sign_in_provider: "custom" };
    const times = { iat: now() - 10, exp: now() + lasts, auth_time: now() - 10 };
    const who = { iss: `https://securetoken.google.com/${PROJECT}`, aud: PROJECT, sub: uid, user_id: uid };
    return this.token({ ...who, ...times, firebase, ...more });
  }
}

/** A token that a database secret signs: legacy (`v: 0`) or Wilddog's (`v: 1`). */
export function secretToken(claims, secret = SECRET) {
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iat: now() - 10, ...claims })}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/** What an app uses to sign in, as far as the database's SDK sees it. */
export class FakeAuth {
  #listeners = [];
  #token = null;
  /** Each time that the SDK asked for another token because the one it had is no longer accepted. */
  refreshes = new Record("tokens asked for anew");

  /** What the SDK asks for. */
  get component() {
    const nothing = { serviceProps: {}, onInstanceCreated: null, multipleInstances: false };
    return { name: "auth-internal", type: "PRIVATE", instantiationMode: "LAZY", instanceFactory: () => this, ...nothing };
  }

  get hooks() {
    return { app: (add) => add(this.component) };
  }

  /** Signs in with a token, or out with `null`. */
  set(token) {
    this.#token = token;
    for (const listener of this.#listeners) listener(token);
  }

  async getToken(isForced) {
    if (isForced) this.refreshes.add(this.#token);
    return this.#token && { accessToken: this.#token };
  }

  addAuthTokenListener(listener) {
    this.#listeners.push(listener);
    listener(this.#token);
  }

  removeAuthTokenListener(listener) {
    this.#listeners = this.#listeners.filter((known) => known !== listener);
  }

  getUid() {
    return null;
  }
}
