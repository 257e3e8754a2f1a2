/** The output of `npm run example:chat`. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const example = fileURLToPath(new URL("../../examples/chat/main.ts", import.meta.url));

test("the example talks, loses its worker half-way, says so, and goes on", async () => {
  const child = spawn(process.execPath, [example], { stdio: ["ignore", "pipe", "pipe"] });
  onTestFinished(() => void child.kill("SIGTERM"));
  let output = "";
  let errors = "";
  child.stdout.on("data", (data) => {
    output += data;
  });
  child.stderr.on("data", (data) => {
    errors += data;
  });
  const [code] = await once(child, "exit");
  expect([code, errors]).toEqual([0, ""]);
  const lines = output.split("\n").map((line) => line.trim());
  const said = (text: string) => lines.filter((line) => line.startsWith("agent:") && line.includes(text));
  expect(
    said('You said "what do you know of me?". Before that you said "my name is Ada", then "I like engines".'),
  ).toHaveLength(1);
  // Half of a reply, and the end of its turn.
  expect(said('You said "tell me all of it again"')).toEqual([]);
  expect(lines).toContain("[failed: worker lost: its stream broke; it may be sent again]");
  // The lost turn left nothing in the memory of the next turn.
  expect(
    said(
      'You said "are you still there?". Before that you said "my name is Ada", then "I like engines", then "what do you know of me?".',
    ),
  ).toHaveLength(1);
}, 120_000);
