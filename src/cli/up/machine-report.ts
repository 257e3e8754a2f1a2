/**
 * The executor of a new machine: a local program, free of charge. Reads the prompt from standard
 * input like an agent, and reports on this machine and the repository of its directory.
 */
import { execFile } from "node:child_process";
import { statfs } from "node:fs/promises";
import { availableParallelism, freemem, hostname, loadavg, release, totalmem, type, uptime } from "node:os";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { formatLength } from "../print/lengths.ts";
import { details } from "../print/table.ts";

const run = promisify(execFile);
const gitTimeoutMs = 5_000;
const outputBytesMax = 1024 * 1024;
const commitsShown = 5;

/** Output of git; undefined without git, a repository, or an answer in time. */
async function git(...args: string[]): Promise<string | undefined> {
  try {
    const { stdout } = await run("git", args, { timeout: gitTimeoutMs, maxBuffer: outputBytesMax });
    return stdout.trim();
  } catch {
    return undefined;
  }
}

async function machine(): Promise<[string, string][]> {
  const disk = await statfs(".").catch(() => undefined);
  return [
    ["host", hostname()],
    ["system", `${type()} ${release()}, node ${process.version}`],
    ["up for", formatLength(uptime() * 1000)],
    [
      "load",
      `${loadavg()
        .map((load) => load.toFixed(2))
        .join(" ")} on ${availableParallelism()} processors`,
    ],
    ["memory", `${gibibytes(freemem())} free of ${gibibytes(totalmem())}`],
    [
      "disk",
      disk ? `${gibibytes(disk.bavail * disk.bsize)} free of ${gibibytes(disk.blocks * disk.bsize)}` : "",
    ],
  ];
}

function gibibytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

async function repository(): Promise<[string, string][]> {
  const [top, branch, week, status, latest] = await Promise.all([
    git("rev-parse", "--show-toplevel"),
    git("rev-parse", "--abbrev-ref", "HEAD"),
    git("rev-list", "--count", "--since=7.days", "HEAD"),
    git("status", "--porcelain"),
    git("log", `-${commitsShown}`, "--format=%h %s (%an, %ar)"),
  ]);
  if (top === undefined) return [["repository", `none at ${process.cwd()}`]];
  const changed = status ? status.split("\n").length : 0;
  return [
    ["repository", top],
    ["branch", latest === undefined ? "no commits yet" : (branch ?? "")],
    ["last 7 days", week === undefined ? "" : `${week} ${week === "1" ? "commit" : "commits"}`],
    ["uncommitted", status === undefined ? "" : `${changed} ${changed === 1 ? "file" : "files"}`],
    ["latest", latest ?? ""],
  ];
}

/** The whole program: reads the prompt and prints the report. */
export async function reportOnMachine(): Promise<void> {
  const prompt = await text(process.stdin);
  const [machineLines, repositoryLines] = await Promise.all([machine(), repository()]);
  const lines = [
    `Report of ${hostname()}, ${new Date().toISOString()}`,
    "",
    ...details([...machineLines, ...repositoryLines], (name) => name),
    "",
    `The prompt (${prompt.length} characters) was read but not followed: this is a plain program, no model.`,
    "Name another executor in device.toml for that, for example claude-code.",
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}
