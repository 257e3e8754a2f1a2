/** Runs a program to its end, and takes all file descriptors of this process once it has begun. */
import { closeSync, openSync } from "node:fs";
import { runChild } from "../../../clients/ts/src/runner/child.ts";

const taken: number[] = [];
let taking: NodeJS.Timeout | undefined;
const takeAll = () => {
  try {
    for (;;) taken.push(openSync("/dev/null", "r"));
  } catch {
    // None is left.
  }
};

const end = await runChild({
  // A child in the background keeps the group alive for a moment, so that the daemon looks for it.
  command: ["sh", "-c", "sleep 30 & echo the answer; read line"],
  cwd: undefined,
  env: { PATH: process.env.PATH ?? "" },
  stdin: undefined,
  onPipes: ({ stdin, stdout }) => {
    stdout.once("data", () => {
      // Also those that are free once a pipe has been closed.
      taking = setInterval(takeAll, 1);
      takeAll();
      stdin.end("go\n");
    });
  },
  timeoutMs: 30_000,
  killGraceMs: 200,
  outputLimitBytes: 1024,
  signal: new AbortController().signal,
  onStart: () => {},
  onOutput: () => {},
});
clearInterval(taking);
for (const descriptor of taken) closeSync(descriptor);
process.stdout.write(JSON.stringify(end));
