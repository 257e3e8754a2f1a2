/** What `contexts.json` may hold: the file is read by every command, without a schema. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { contextsFile, readContexts } from "../../../src/cli/contexts/file.ts";

let home = "";

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "pinion-contexts-"));
});

afterEach(() => rmSync(home, { recursive: true }));

function read(content: string) {
  const env = { HOME: home };
  const path = contextsFile(env);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content, { mode: 0o600 });
  return readContexts(env);
}

test("a context holds its token, or names the keychain that does", () => {
  const contexts = {
    current: "home",
    contexts: {
      home: { url: "http://localhost:7420", token: "pat_1" },
      office: { url: "https://pinion.example.com", keychain: "secret-service" as const },
    },
  };
  expect(read(JSON.stringify(contexts))).toEqual(contexts);
});

test("a file without contexts is usable", () => {
  expect(read('{"current":"","contexts":{}}')).toEqual({ current: "", contexts: {} });
});

const url = "http://localhost:7420";
test.each([
  "",
  "[]",
  "null",
  "{}",
  '{"current":1,"contexts":{}}',
  '{"current":"","contexts":[]}',
  '{"current":"a","contexts":{"a":null}}',
  '{"current":"a","contexts":{"a":{"token":"x"}}}',
  '{"current":"a","contexts":{"a":{"url":"no url","token":"x"}}}',
  `{"current":"a","contexts":{"a":{"url":"${url}"}}}`,
  `{"current":"a","contexts":{"a":{"url":"${url}","token":""}}}`,
  `{"current":"a","contexts":{"a":{"url":"${url}","keychain":"windows"}}}`,
])("%j is refused", (content) => {
  expect(() => read(content)).toThrow("is not what this command writes");
});
