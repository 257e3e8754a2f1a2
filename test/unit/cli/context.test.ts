import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findToken, serverUrl } from "../../../src/cli/context.ts";

const directory = () => mkdtempSync(join(tmpdir(), "pinion-context-"));

test("the server is the given one, else the environment's, else the data directory's, else port 7420 here", () => {
  const data = directory();
  expect(serverUrl({ data }, {})).toBe("http://localhost:7420");
  writeFileSync(join(data, "url"), "http://localhost:8080\n");
  expect(serverUrl({ data }, {})).toBe("http://localhost:8080");
  expect(serverUrl({ data }, { PINION_URL: "https://pinion.example.org/" })).toBe(
    "https://pinion.example.org",
  );
  expect(serverUrl({ data, url: "box:9000" }, { PINION_URL: "https://elsewhere" })).toBe("http://box:9000");
});

test("an address copied from the browser, with the view of the page behind it, names the server", () => {
  for (const copied of ["http://box:7420/#/runs/1", "http://box:7420/?x=1#/sign-in?code=a", "box:7420/#"]) {
    expect(serverUrl({ url: copied }, {}), copied).toBe("http://box:7420");
  }
});

test("a server that is no web address is refused with an example", () => {
  expect(() => serverUrl({ url: "ftp://x" }, {})).toThrow("neither http nor https");
  expect(() => serverUrl({ url: "http://" }, {})).toThrow("no URL");
});

test("the token is the given one, else the environment's, else the data directory's, else the user's", () => {
  const data = directory();
  const home = directory();
  expect(findToken({ data }, { HOME: home, XDG_CONFIG_HOME: join(home, "config") })).toBeUndefined();
  writeFileSync(join(data, "token"), "pin_pat_file\n");
  expect(findToken({ data }, { HOME: home })).toEqual({ token: "pin_pat_file", from: join(data, "token") });
  expect(findToken({ data }, { PINION_TOKEN: "pin_pat_env" })?.token).toBe("pin_pat_env");
  expect(findToken({ data, token: "pin_pat_flag" }, { PINION_TOKEN: "pin_pat_env" })?.token).toBe(
    "pin_pat_flag",
  );
});
