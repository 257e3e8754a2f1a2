import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { ConfigError as DeviceConfigError, DeviceError } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { exitCodes, explain, Failure } from "../../../src/cli/failures.ts";
import { Refusal } from "../../../src/errors.ts";

const url = "http://localhost:7420";

test("a server that is not there is named, with how to start one", () => {
  const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  const told = explain(new ConnectError("refused", Code.Unavailable, undefined, undefined, cause), url);
  expect(told).toMatchObject({ message: `no Pinion at ${url}`, exitCode: exitCodes.unreachable });
  expect(told.advice).toContain("pinion up");
});

test.each([
  [Code.Unauthenticated, 4],
  [Code.PermissionDenied, 4],
  [Code.NotFound, 5],
  [Code.FailedPrecondition, 6],
  [Code.AlreadyExists, 6],
  [Code.Aborted, 6],
  [Code.InvalidArgument, 2],
  [Code.Unavailable, 3],
  [Code.Internal, 1],
])("an answer of code %i ends with exit code %i", (code, exitCode) => {
  expect(explain(new ConnectError("x", code), url).exitCode).toBe(exitCode);
});

test.each([
  ['there is no watcher "x"', Code.NotFound, "pinion watchers list"],
  ["there is no device d", Code.NotFound, "pinion devices list"],
  ['a watcher with the slug "mine" exists already', Code.AlreadyExists, "pinion watchers update mine"],
])("%s: leads on to a command", (message, code, command) => {
  expect(explain(new ConnectError(message, code), url).advice).toContain(command);
});

test("refusals, daemons and configurations have their codes too", () => {
  expect(explain(new Refusal("failed_precondition", "x"), undefined).exitCode).toBe(6);
  expect(explain(new DeviceError("locked", "x"), undefined).exitCode).toBe(6);
  expect(explain(new DeviceError("revoked", "x"), undefined).exitCode).toBe(4);
  expect(explain(new DeviceConfigError("f", []), undefined).exitCode).toBe(2);
  expect(explain(new Failure(5, "x", "y"), undefined)).toMatchObject({
    message: "x",
    advice: "y",
    exitCode: 5,
  });
});

test("an error of a file names the file and its trouble, without the advice to look into the program", () => {
  const directory = mkdtempSync(join(tmpdir(), "pinion-test-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "file");
  writeFileSync(file, "");
  const told = (fails: () => void) => {
    try {
      fails();
    } catch (error) {
      return explain(error, undefined);
    }
    throw new Error("nothing failed");
  };
  const ofDirectory = told(() => readFileSync(directory));
  const ofWrite = told(() => writeFileSync(directory, ""));
  const below = told(() => mkdirSync(join(file, "below"), { recursive: true }));
  const occupied = told(() => mkdirSync(file));
  expect(ofDirectory).toMatchObject({ message: expect.stringContaining("is a directory"), exitCode: 2 });
  expect(ofWrite).toMatchObject({
    message: `${directory} is a directory, and a file is needed`,
    exitCode: 2,
  });
  expect(below.message).toContain("a part of the path is no directory");
  expect(occupied).toMatchObject({ message: `${file} is there already, as something else`, exitCode: 2 });
  for (const { advice } of [ofWrite, below, occupied]) expect(advice).toContain("name another path");
});
