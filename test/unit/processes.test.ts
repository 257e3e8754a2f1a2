import { spawn } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventually, processesWith, temporaryDirectory } from "../support/processes.ts";

let left = "";

test.skipIf(process.platform !== "linux")(
  "a program that outlives its daemon runs in a directory of the test",
  async () => {
    left = join(await temporaryDirectory(), "agent.sh");
    const child = spawn("sh", ["-c", "while true; do sleep 0.1; done", left], { detached: true });
    child.unref();
    expect(await eventually(() => processesWith(left)[0], "the program to begin")).toBe(child.pid);
  },
);

test.skipIf(process.platform !== "linux")("and is gone after the test, with the directory", async () => {
  expect(await eventually(() => processesWith(left).length === 0, "the program to end")).toBe(true);
});
