import { expect, test } from "vitest";
import { cellOf, renameToken } from "../../../clients/ts/src/cell.ts";
import { secretsOf } from "../../../clients/ts/src/runner/redaction.ts";
import { agentToken, readAgentToken } from "../../../src/values/agent-token.ts";
import {
  isUuid,
  newCode,
  newId,
  newJoinCode,
  newToken,
  secretHash,
  type TokenKind,
  tokenKind,
  withCell,
} from "../../../src/values/ids.ts";

test("an id is a UUID of version 7 that carries its moment", () => {
  const id = newId(0x0123_4567_89ab);
  expect(id).toMatch(/^01234567-89ab-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(isUuid(id)).toBe(true);
});

test("ids sort by the moment they were made, and do not repeat", () => {
  const ids = Array.from({ length: 1_000 }, (_, i) => newId(1_700_000_000_000 + i));
  expect([...ids].sort()).toEqual(ids);
  expect(new Set(Array.from({ length: 10_000 }, () => newId(1))).size).toBe(10_000);
});

test("only a UUID is taken for one", () => {
  for (const text of [
    "",
    "daily-checkin",
    "018f0000-0000-7000-8000-00000000000",
    `${newId()} `,
    `x${newId()}`,
  ]) {
    expect(isUuid(text)).toBe(false);
  }
  expect(isUuid(newId().toUpperCase())).toBe(true);
});

const kinds: TokenKind[] = ["pat", "dev", "svc"];

test("a token says its kind, is long enough not to be guessed, and never repeats", () => {
  for (const kind of kinds) {
    const token = newToken(kind);
    expect(token).toMatch(new RegExp(`^pin_${kind}_[0-9A-Za-z]{30}_[0-9a-f]{8}$`));
    expect(tokenKind(token)).toBe(kind);
  }
  expect(new Set(Array.from({ length: 1_000 }, () => newToken("pat"))).size).toBe(1_000);
});

test("a token with any letter changed is known to be wrong without asking anybody", () => {
  const token = newToken("dev");
  for (let i = 0; i < token.length; i++) {
    const other = token[i] === "a" ? "b" : "a";
    expect(tokenKind(token.slice(0, i) + other + token.slice(i + 1))).toBeUndefined();
  }
  for (const wrong of ["", token.slice(0, -1), `${token}0`, token.toUpperCase(), ` ${token}`, `${token}\n`]) {
    expect(tokenKind(wrong)).toBeUndefined();
  }
});

test("what is stored of a secret is its SHA-256", () => {
  expect(secretHash("abc").toString("hex")).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

test("a cell's name is put in, changed and taken out, and is no part of what is stored", () => {
  const id = "018f0000-0000-7000-8000-000000000000";
  const runToken = agentToken({ orgId: "acme", runId: id, attemptToken: id });
  for (const text of [newToken("dev"), newToken("pat"), newCode(), newJoinCode(), id, runToken]) {
    for (const cell of ["eu1", "a", "x123456789012345"]) {
      const named = withCell(text, cell);
      expect(named.toLowerCase()).toContain(cell);
      expect(withCell(named, "us2")).toBe(withCell(text, "us2"));
      expect(withCell(named, "")).toBe(text);
      expect(secretHash(named)).toEqual(secretHash(text));
    }
  }
  expect(tokenKind(withCell(newToken("svc"), "eu1"))).toBe("svc");
  expect(readAgentToken(`Bearer ${withCell(runToken, "eu1")}`)).toEqual(readAgentToken(`Bearer ${runToken}`));
  for (const other of ["", "postgres://x", "pin_dev_EU1_x_y", "eu1_short"])
    expect(withCell(other, "eu1")).toBe(other);
});

test("the client library reads and writes the same names", () => {
  const token = newToken("dev");
  expect(renameToken(token, "eu1")).toBe(withCell(token, "eu1"));
  expect(renameToken(withCell(token, "eu1"), "us2")).toBe(withCell(token, "us2"));
  for (const text of [token, newCode(), newJoinCode()]) {
    expect(cellOf(withCell(text, "eu1"))).toBe("eu1");
    expect(cellOf(text)).toBe("");
  }
  expect(secretsOf(withCell(token, "eu1"))).toContain(token.split("_")[2]);
});

test("a join code is four groups of letters that are not mistaken for each other", () => {
  for (let i = 0; i < 200; i++) {
    expect(newJoinCode()).toMatch(/^([A-HJ-NP-Z2-9]{4}-){3}[A-HJ-NP-Z2-9]{4}$/);
  }
});
