import { expect, test } from "vitest";
import {
  isUuid,
  newId,
  newJoinCode,
  newToken,
  secretHash,
  type TokenKind,
  tokenKind,
} from "../../src/ids.ts";

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

test("a join code is four groups of letters that are not mistaken for each other", () => {
  for (let i = 0; i < 200; i++) {
    expect(newJoinCode()).toMatch(/^([A-HJ-NP-Z2-9]{4}-){3}[A-HJ-NP-Z2-9]{4}$/);
  }
});
