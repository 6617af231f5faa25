// Certificates as an operator makes them for a server of their own: an authority, and what it vouches for.

import { execFileSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const openssl = (...args) => execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });

/** An authority that nobody knows but those who are told: by `file`. */
export class Authority {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "stillhere-ca-"));
    this.file = join(this.folder, "ca.pem");
    this.key = join(this.folder, "ca.key");
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    openssl("req", "-x509", ...kind, "-subj", "/CN=Test authority", "-keyout", this.key, "-out", this.file);
  }

  /** A certificate for these names: the texts of its PEM files. `kind` is what `openssl req -newkey` takes. */
  issue(names, kind = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]) {
    const at = (name) => join(this.folder, name);
    const alternatives = names.map((name) => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`)).join(",");
    writeFileSync(at("san"), `subjectAltName=${alternatives}\nextendedKeyUsage=serverAuth\n`);
    openssl("req", "-newkey", ...kind, "-nodes", "-subj", "/CN=Test server", "-keyout", at("key"), "-out", at("csr"));
    const by = ["-CA", this.file, "-CAkey", this.key, "-CAcreateserial", "-extfile", at("san"), "-days", "2"];
    openssl("x509", "-req", "-in", at("csr"), ...by, "-out", at("cert"));
    const [cert, key] = [readFileSync(at("cert"), "utf8"), readFileSync(at("key"), "utf8")];
    return { cert: cert + readFileSync(this.file, "utf8"), key, leaf: new X509Certificate(cert) };
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What Chromium takes to trust exactly this key, whoever vouches for it. */
export const pin = (leaf) => createHash("sha256").update(leaf.publicKey.export({ type: "spki", format: "der" })).digest("base64");

/** What a server's configuration says about the files `server.pem` and `server.key` beside it. */
export const TLS = `[tls]\ncert = "server.pem"\nkey = "server.key"\n`;

export const files = ({ cert, key }) => ({ "server.pem": cert, "server.key": key });
