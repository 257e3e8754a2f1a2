/** Certificates for localhost, made where openssl is. Node can make keys, but no certificates. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

export const hasOpenssl = (() => {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

/** A certificate that is its own authority, good for so many days from now, as files and as text; removed after the test. */
export function makeCertificate(days = 2) {
  const dir = mkdtempSync(join(tmpdir(), "pinion-certificate-"));
  onTestFinished(() => rmSync(dir, { recursive: true }));
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
