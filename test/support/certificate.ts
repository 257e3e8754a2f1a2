/** Certificates for localhost, made where openssl is. Node can make keys, but no certificates. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

export const hasOpenssl = (() => {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    console.error("NOTICE: what needs certificates is not tested, for there is no openssl");
    return false;
  }
})();

/** A certificate as `writeCertificate` makes it; removed after the test. */
export function makeCertificate(days = 2) {
  const dir = mkdtempSync(join(tmpdir(), "pinion-certificate-"));
  onTestFinished(() => rmSync(dir, { recursive: true }));
  return writeCertificate(dir, days);
}

/**
 * A self-signed certificate that is also an authority, valid for `days` days from now, as files in
 * the directory and as text.
 */
export function writeCertificate(dir: string, days = 2) {
  const [certFile, keyFile] = [join(dir, "cert.pem"), join(dir, "key.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  execFileSync(
    "openssl",
    ["req", "-x509", ...curve, "-days", String(days), ...names, "-keyout", keyFile, "-out", certFile],
    { stdio: "ignore" },
  );
  return { certFile, keyFile, cert: readFileSync(certFile, "utf8"), key: readFileSync(keyFile, "utf8") };
}

export type Authority = {
  certFile: string;
  /**
   * A certificate signed by the authority, as files: for a server of these names, or for a client.
   */
  sign(subject: string, ...names: string[]): { certFile: string; keyFile: string };
};

/** An authority and its certificates, valid for two days; removed with their folder. */
export function makeAuthority(folder: string): Authority {
  const dir = mkdtempSync(join(folder, "authority-"));
  const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "ignore" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const [certFile, authorityKeyFile] = [join(dir, "authority.pem"), join(dir, "authority.key")];
  const own = ["-days", "2", "-subj", "/CN=authority", "-keyout", authorityKeyFile, "-out", certFile];
  openssl("req", "-x509", ...key, ...own);
  return {
    certFile,
    sign(subject, ...names) {
      const file = (ending: string) => join(dir, `${subject}.${ending}`);
      const signed = { certFile: file("pem"), keyFile: file("key") };
      openssl("req", ...key, "-subj", `/CN=${subject}`, "-keyout", signed.keyFile, "-out", file("csr"));
      writeFileSync(file("ext"), names.length > 0 ? `subjectAltName=${names.join(",")}\n` : "");
      const by = ["-CA", certFile, "-CAkey", authorityKeyFile, "-CAcreateserial", "-days", "2"];
      openssl("x509", "-req", "-in", file("csr"), ...by, "-extfile", file("ext"), "-out", signed.certFile);
      return signed;
    },
  };
}
