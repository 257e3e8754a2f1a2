/**
 * Real agents for tests: installed once from test/agents into a directory outside of the
 * repository, at the versions of their lockfiles, and kept for later runs; or visibly absent. They
 * use a scripted model (model.ts) and have no other network access.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { lock } from "./file-lock.ts";
import { noticeSkipped } from "./notice.ts";

const run = promisify(execFile);
const packages = resolve(import.meta.dirname, "../agents");
/** From nothing, 400 MB may take minutes. */
const INSTALL_MS_MAX = 5 * 60_000;

export interface RealAgent {
  /** Program and arguments. */
  command: string[];
}

export type AgentName = "claude" | "codex" | "claude-agent-acp" | "codex-acp" | "opencode" | "gemini";

const PACKAGE_OF: Record<AgentName, string> = {
  claude: "claude",
  "claude-agent-acp": "claude",
  codex: "codex",
  "codex-acp": "codex-acp",
  opencode: "opencode",
  gemini: "gemini",
};

/**
 * The command of each agent; undefined, with a notice, for agents that cannot be installed here.
 */
export async function realAgents(...names: AgentName[]): Promise<Partial<Record<AgentName, RealAgent>>> {
  const found: Partial<Record<AgentName, RealAgent>> = {};
  // One after the other: together they are more than a gigabyte.
  for (const name of names) {
    const agent = await realAgent(name);
    if ("missing" in agent) noticeSkipped(`tests with ${name}`, agent.missing);
    else found[name] = agent;
  }
  return found;
}

async function realAgent(name: AgentName): Promise<RealAgent | { missing: string }> {
  const { platform, arch } = process;
  if (platform !== "linux" || !["x64", "arm64"].includes(arch)) {
    return { missing: `the lockfiles' programs are tried on Linux only, this is ${platform} ${arch}` };
  }
  let folder: string;
  try {
    folder = await installed(PACKAGE_OF[name]);
  } catch (error) {
    return { missing: `npm could not install it: ${lastLine(error)}` };
  }
  const modules = join(folder, "node_modules");
  const triple = `${arch === "x64" ? "x86_64" : "aarch64"}-unknown-linux-musl`;
  const commands: Record<AgentName, string[]> = {
    claude: [join(modules, `@anthropic-ai/claude-agent-sdk-linux-${arch}/claude`)],
    codex: [join(modules, `@openai/codex-linux-${arch}/vendor/${triple}/bin/codex`)],
    "claude-agent-acp": [
      process.execPath,
      join(modules, "@agentclientprotocol/claude-agent-acp/dist/index.js"),
    ],
    gemini: [process.execPath, join(modules, "@google/gemini-cli/bundle/gemini.js"), "--acp"],
    opencode: [join(modules, `opencode-linux-${arch}/bin/opencode`), "acp"],
    "codex-acp": [join(modules, `@zed-industries/codex-acp-linux-${arch}/bin/codex-acp`)],
  };
  const command = commands[name];
  const program = command.findLast((word) => word.startsWith("/")) ?? "";
  return existsSync(program) ? { command } : { missing: `${program} is not in its package` };
}

async function installed(name: string): Promise<string> {
  const source = join(packages, name);
  const files = ["package.json", "package-lock.json"];
  const digest = createHash("sha256");
  for (const file of files) digest.update(readFileSync(join(source, file)));
  const { uid } = userInfo();
  const cache = join(tmpdir(), `pinion-agents-${uid}`);
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  if (uid >= 0 && statSync(cache).uid !== uid) throw new Error(`${cache} is another user's`);
  const place = join(cache, `${name}-${digest.digest("hex").slice(0, 16)}`);
  const release = await lock(join(cache, "installing"), INSTALL_MS_MAX);
  try {
    if (existsSync(place)) return place;
    const making = await mkdtemp(join(cache, "making-"));
    try {
      for (const file of files) copyFileSync(join(source, file), join(making, file));
      await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], {
        cwd: making,
        timeout: INSTALL_MS_MAX,
      });
      renameSync(making, place);
    } finally {
      rmSync(making, { recursive: true, force: true });
    }
    return place;
  } finally {
    release();
  }
}

function lastLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr?.trim().split("\n").at(-1) || message.split("\n")[0]) ?? "";
}
