import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Child } from "./children.ts";

const run = promisify(execFile);
const source = fileURLToPath(new URL("../references/river", import.meta.url));
const buildMsMax = 300_000;

/**
 * Starts River in its own process, driven like a {@link Child}; undefined, with a notice, if River
 * cannot be built.
 */
export async function startRiver(): Promise<Child | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "pinion-river-"));
  const program = join(folder, "river");
  try {
    await run("go", ["build", "-o", program, "."], { cwd: source, timeout: buildMsMax });
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    const why = code === "ENOENT" ? "Go is not installed" : `it could not be built: ${stderr || error}`;
    console.error(`River is left out: ${why}`);
    await rm(folder, { recursive: true, force: true });
    return undefined;
  }
  const child = spawn(program, [], { stdio: ["pipe", "pipe", "inherit"] });
  return talk(child, () => rm(folder, { recursive: true, force: true }));
}

/** A line of JSON for each question, and for each answer. */
function talk(child: ChildProcess, clean: () => Promise<void>): Child {
  const waiting: { resolve: (answer: never) => void; reject: (error: Error) => void }[] = [];
  createInterface({ input: child.stdout! }).on("line", (line) => {
    const message = JSON.parse(line) as { answer?: unknown; error?: string };
    const next = waiting.shift();
    if (message.error === undefined) next?.resolve(message.answer as never);
    else next?.reject(new Error(message.error));
  });
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => {
      for (const { reject } of waiting.splice(0)) reject(new Error("river ended"));
      resolve();
    });
  }).then(clean);
  return {
    pid: child.pid!,
    process: child,
    ask: (question) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        child.stdin!.write(`${JSON.stringify(question)}\n`);
      }),
    async leave() {
      child.stdin!.end();
      await ended;
    },
    async kill(signal = "SIGKILL") {
      child.kill(signal);
      await ended;
    },
  };
}
