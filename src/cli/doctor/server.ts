import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { ConfigError, type ReplicaConfig, replicaConfig } from "../../config.ts";
import { isLoopback } from "../../network/loopback.ts";
import type { Environment } from "../cli.ts";
import { Failure } from "../failures.ts";
import { requireFreePort } from "../up/listening.ts";
import type { Check } from "./check.ts";
import { checkExpiry, readCertificate } from "./tls.ts";

/** Problems of a replica started in this environment, except its database. */
export async function checkServer(env: Environment): Promise<Check[]> {
  let config: ReplicaConfig;
  try {
    // Without a URL the replica starts an embedded PostgreSQL, so any URL serves for the check.
    config = replicaConfig({ ...env, DATABASE_URL: env.DATABASE_URL || "postgres://embedded" });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const advice = "docs/configuration.md lists every variable";
    return [{ name: "settings", verdict: "bad", found: error.message.replaceAll("\n", ";"), advice }];
  }
  return [
    { name: "settings", verdict: "good", found: "every variable can be used" },
    await checkPort(config),
    checkOpenness(config),
    ...checkTlsFiles(config),
    checkKeys(env),
  ];
}

async function checkPort({ host, port }: ReplicaConfig): Promise<Check> {
  try {
    await requireFreePort(host, port);
    return { name: "port", verdict: "good", found: `${port} on ${host} is free` };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // A Pinion on the port is most likely the intended server.
    const isPinion = error.message.includes("looks like a Pinion");
    return {
      name: "port",
      verdict: isPinion ? "good" : "bad",
      found: error.message,
      ...(isPinion || !error.advice ? {} : { advice: error.advice }),
    };
  }
}

function checkOpenness({ host, tls }: ReplicaConfig): Check {
  if (tls)
    return { name: "tls", verdict: "good", found: tls.clientCaFile ? "on, and asked of clients" : "on" };
  if (isLoopback(host)) return { name: "tls", verdict: "good", found: "off; only this machine can connect" };
  return {
    name: "tls",
    verdict: "doubtful",
    found: `off, and others can connect to ${host}`,
    advice:
      "tokens go over the wire: set PINION_TLS_CERT_FILE and PINION_TLS_KEY_FILE, or end TLS in front of it",
  };
}

function checkTlsFiles({ tls }: ReplicaConfig): Check[] {
  if (!tls) return [];
  const name = "certificate";
  const advice = "PINION_TLS_CERT_FILE and PINION_TLS_KEY_FILE name PEM files that this user may read";
  try {
    const certificate = readCertificate(readFileSync(tls.certFile, "utf8"));
    const key = createPrivateKey(readFileSync(tls.keyFile));
    if (!certificate.checkPrivateKey(key)) {
      const found = `${tls.keyFile} is not the key of ${tls.certFile}`;
      return [{ name, verdict: "bad", found, advice: "give the key that the certificate was made with" }];
    }
    if (tls.clientCaFile) readCertificate(readFileSync(tls.clientCaFile, "utf8"));
    return [checkExpiry(certificate)];
  } catch (error) {
    return [{ name, verdict: "bad", found: error instanceof Error ? error.message : String(error), advice }];
  }
}

function checkKeys(env: Environment): Check {
  if (env.PINION_SECRET_KEYS) return { name: "secret keys", verdict: "good", found: "set" };
  if (!env.DATABASE_URL) {
    return {
      name: "secret keys",
      verdict: "good",
      found: "in the data directory, beside the embedded PostgreSQL",
    };
  }
  return {
    name: "secret keys",
    verdict: "doubtful",
    found: "none: platforms with secrets are refused",
    advice: "set PINION_SECRET_KEYS, the same on every replica; docs/security.md says how",
  };
}
