import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readKeys, secretKeys } from "../../src/cli/secret-keys.ts";
import { ConfigError, replicaConfig } from "../../src/config.ts";
import { createKeyring, createReferences, newKey, type SecretPlace } from "../../src/secrets.ts";

const place: SecretPlace = { orgId: "acme", agentId: "helper", platformId: "chat", field: "bot_token" };
const refused = (reason: string) => expect.objectContaining({ reason });

test("a secret that is sealed can be opened, and its ciphertext shows nothing of it", () => {
  const keyring = createKeyring(newKey());
  const sealed = keyring.seal("12345:hunter2 ünï", place);
  expect(sealed).toMatch(/^enc:v1:[\w-]+:[\w-]{16}:[\w-]+$/);
  expect(sealed).not.toContain("hunter2");
  expect(keyring.open(sealed, place)).toBe("12345:hunter2 ünï");
});

test("the same secret is sealed differently every time", () => {
  const keyring = createKeyring(newKey());
  expect(keyring.seal("x", place)).not.toBe(keyring.seal("x", place));
});

test("a ciphertext that was moved to another org, agent, platform or field does not open", () => {
  const keyring = createKeyring(newKey());
  const sealed = keyring.seal("x", place);
  for (const moved of [
    { ...place, orgId: "other" },
    { ...place, agentId: "other" },
    { ...place, platformId: "other" },
    { ...place, field: "other" },
    // The same letters, split otherwise.
    { ...place, orgId: "acmeh", agentId: "elper" },
  ]) {
    expect(() => keyring.open(sealed, moved)).toThrow(refused("failed_precondition"));
  }
});

test("a ciphertext of which any character was changed does not open", () => {
  const keyring = createKeyring(newKey());
  const sealed = keyring.seal("secret", place);
  const body = sealed.lastIndexOf(":") + 1;
  for (let at = body; at < sealed.length - 1; at++) {
    const changed = `${sealed.slice(0, at)}${sealed[at] === "A" ? "B" : "A"}${sealed.slice(at + 1)}`;
    expect(() => keyring.open(changed, place)).toThrow(refused("failed_precondition"));
  }
  for (const malformed of [
    "",
    "enc:v1:",
    "enc:v2:k:AAAAAAAAAAAAAAAA:AAAA",
    `${sealed}:x`,
    sealed.slice(0, body + 4),
  ]) {
    expect(() => keyring.open(malformed, place)).toThrow(refused("failed_precondition"));
  }
});

test("the first key seals, the others still open, and a secret knows whether its key is the first", () => {
  const [old, young] = [newKey(), newKey()];
  const before = createKeyring(old);
  const sealed = before.seal("x", place);
  const both = createKeyring(`${young},${old}`);
  expect(both.open(sealed, place)).toBe("x");
  expect(both.isOutdated(sealed)).toBe(true);
  const anew = both.seal(both.open(sealed, place), place);
  expect(both.isOutdated(anew)).toBe(false);
  expect(createKeyring(young).open(anew, place)).toBe("x");
  expect(() => createKeyring(young).open(sealed, place)).toThrow(/lacks its key/);
});

test("without a key nothing is sealed, and the refusal says what to set", () => {
  expect(() => createKeyring("").seal("x", place)).toThrow(/PINION_SECRET_KEYS/);
});

test("keys that are no keys are refused by their number, and never shown", () => {
  const key = newKey();
  for (const bad of ["tooshort", "a:c2hvcnQ=", "ä:AAAA", `${key},${key}`, `${key},b:!!${"A".repeat(43)}`]) {
    const settings = { DATABASE_URL: "postgres://x", PINION_SECRET_KEYS: bad };
    expect(() => replicaConfig(settings)).toThrow(ConfigError);
    expect(() => replicaConfig(settings)).toThrow(/^(?!.*(c2hvcnQ|AAAAAAA)).*PINION_SECRET_KEYS/s);
  }
});

test("a reference finds what the server has for that org, and never the keys themselves", () => {
  const { references } = replicaConfig({
    DATABASE_URL: "postgres://x",
    PINION_SECRET_KEYS: newKey(),
    PINION_SECRET_TEAM_BOT: "12345",
  }).secrets;
  expect(references.find("local", "TEAM_BOT")).toBe("12345");
  expect(references.find("local", "KEYS")).toBeUndefined();
  expect(references.find("local", "toString")).toBeUndefined();
  expect(references.find("other", "TEAM_BOT")).toBeUndefined();
  expect(createReferences(["*"], { A: "b" }).find("other", "A")).toBe("b");
});

test("a first start makes a key file that only its owner reads, and later starts use it", () => {
  const data = join(mkdtempSync(join(tmpdir(), "pinion-")), "data");
  expect(secretKeys(data, {}, { isCreated: false })).toBe("");
  const keys = secretKeys(data, {}, { isCreated: true });
  expect(createKeyring(keys).currentKeyId).toBeDefined();
  expect(statSync(join(data, "secret-keys")).mode & 0o777).toBe(0o600);
  expect(secretKeys(data, {}, { isCreated: true })).toBe(keys);
  expect(secretKeys(data, {}, { isCreated: false })).toBe(keys);
  expect(secretKeys(data, { PINION_SECRET_KEYS: "a:b" }, { isCreated: true })).toBe("a:b");
  expect(readFileSync(join(data, "secret-keys"), "utf8").trim()).toBe(keys);
});

test("a key file that others may read is refused", () => {
  const data = mkdtempSync(join(tmpdir(), "pinion-"));
  writeFileSync(join(data, "secret-keys"), newKey(), { mode: 0o644 });
  expect(() => readKeys(data)).toThrow(/others may read it/);
});
