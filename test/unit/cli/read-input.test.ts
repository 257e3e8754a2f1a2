import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { expect, onTestFinished, test } from "vitest";
import { readInput, readWhole } from "../../../src/cli/apply/file/read-input.ts";

test.skipIf(process.platform === "win32")(
  "a pipe in non-blocking mode whose writer is slow is waited for, and read to its end",
  () => {
    const writer = spawn("sh", ["-c", "printf 'the first '; sleep 0.3; printf 'and the last'"]);
    onTestFinished(() => void writer.kill());
    // Node's end of a child's pipe is in non-blocking mode, as the standard input of a command may
    // be.
    const { fd } = (writer.stdout as unknown as { _handle: { fd: number } })._handle;
    expect(readWhole(fd, "standard input").toString()).toBe("the first and the last");
  },
);

test("what cannot be read is named, and what has no end is cut off", () => {
  expect(() => readInput(tmpdir())).toThrow(`${tmpdir()} is a directory, and a file is needed`);
  expect(() => readInput("/nonexistent/file")).toThrow("there is no /nonexistent/file");
  if (process.platform === "linux") {
    expect(() => readInput("/dev/zero")).toThrow("/dev/zero is larger than 64 MiB");
  }
});
