import { randomUUID } from "node:crypto";
import { renameSync } from "node:fs";
import { loadConfig, readStatus } from "@pinion/client";
import type { Command } from "commander";
import { build } from "../../../build.ts";
import { sleep } from "../../../time/abort.ts";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { type GlobalOptions, optionsOf, proxyOption } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { plain } from "../../print/table.ts";
import { deviceUrl, requireIdentity } from "../enrolled.ts";
import { daemonPid, ownConfigFile, ownStateDir } from "../state-dir.ts";
import { fetchProgram, findOffer, type Source } from "./download.ts";
import { readRecord, type UpgradeRecord, writeRequest } from "./record.ts";
import { requireOffer, whyUnavailable } from "./upgrader.ts";
import { isNewer } from "./version.ts";

type UpgradeOptions = GlobalOptions & {
  stateDir?: string;
  config?: string;
  check?: boolean;
  anyway?: boolean;
};

const pollMs = 200;
/** Time in ms for the daemon's first answer to a request. */
const answerMs = 15_000;

/** `pinion device upgrade`: the daemon's program, from its server. */
export function addUpgrade(device: Command, cli: Cli): void {
  const command = device
    .command("upgrade")
    .description(
      "replace the daemon's program by the server's newer one; undone if the new one does not come up",
    )
    .option("--check", "only say whether there is a newer one")
    .option("--anyway", "also if the server's version is not newer")
    .option("--state-dir <dir>", "the device's state (PINION_STATE_DIR; ~/.local/state/pinion/device)")
    .option("--config <file>", "whose `proxy` is used; default: ~/.config/pinion/device.toml")
    .action((_options, command: Command) => upgrade(cli, optionsOf<UpgradeOptions>(command)));
  examples(command, [
    ["device upgrade", "programs of runs go on to their end first"],
    ["device upgrade --check --json", "for a script"],
  ]);
}

async function upgrade(cli: Cli, options: UpgradeOptions): Promise<void> {
  const stateDir = options.stateDir ?? ownStateDir(cli.env);
  const identity = await requireIdentity(stateDir);
  const url = deviceUrl(identity, options, cli);
  const interrupt = interruptSignal();
  const source: Source = {
    url,
    ...proxyOf(options, options.config ?? ownConfigFile(cli.env)),
    signal: interrupt.signal,
  };
  try {
    if (options.check) return await check(cli, options, source);
    const pid = await daemonPid(stateDir);
    if (pid === undefined) await replaceAlone(cli, options, source);
    else await ask(cli, options, { stateDir, pid, signal: interrupt.signal });
  } finally {
    interrupt.dispose();
  }
}

function proxyOf(options: UpgradeOptions, configFile: string) {
  if (options.proxy !== undefined) return proxyOption(options);
  try {
    const { proxy } = loadConfig(configFile);
    return proxy === undefined ? {} : { proxy };
  } catch {
    return {};
  }
}

async function check(cli: Cli, options: UpgradeOptions, source: Source): Promise<void> {
  const system = `${process.platform}-${process.arch}`;
  const offer = await findOffer(source, { program: build.program, system });
  const offered = offer?.version ?? "";
  const is = isNewer(offered, build.version);
  if (options.json) {
    return cli.out(
      JSON.stringify({ version: build.version, offered_version: offered, is_newer: is, system }),
    );
  }
  if (!offer) cli.out(`${source.url} gives no ${build.program} for ${system}`);
  else if (is) cli.out(`${build.version} is here, and ${source.url} gives ${plain(offered)}`);
  else cli.out(`${build.version} is here, and ${source.url} gives nothing newer (${plain(offered)})`);
}

/** No daemon runs: the fetched program was started once (`--version`), and replaces the present. */
async function replaceAlone(cli: Cli, options: UpgradeOptions, source: Source): Promise<void> {
  const why = whyUnavailable({ isOfUp: false });
  if (why !== "") throw new Failure(exitCodes.conflict, why);
  const offer = await requireOffer(source, { isAnyway: options.anyway === true }).catch((error: Error) => {
    throw error instanceof Failure ? error : new Failure(exitCodes.conflict, error.message, anywayAdvice);
  });
  const next = await fetchProgram(source, offer, process.execPath);
  renameSync(next, process.execPath);
  if (options.json) {
    return cli.out(JSON.stringify({ state: "kept", from: build.version, to: offer.version, problem: "" }));
  }
  cli.out(`${process.execPath} is ${offer.version} now; no daemon runs, so the new one was not tried`);
}

const anywayAdvice = "--anyway takes the server's program all the same";

/** The running daemon replaces its own program, and tells how far it is. */
async function ask(
  cli: Cli,
  options: UpgradeOptions,
  { stateDir, pid, signal }: { stateDir: string; pid: number; signal: AbortSignal },
): Promise<void> {
  const status = await readStatus(stateDir);
  // The signal would end a daemon that does not know it.
  if (status?.pid !== pid || !status.takesUpgrades) {
    throw new Failure(
      exitCodes.conflict,
      `the daemon (process ${pid}) is of a version without upgrades`,
      "stop it, give this command again, and start it",
    );
  }
  const id = randomUUID();
  writeRequest(stateDir, { id, isAnyway: options.anyway === true });
  try {
    process.kill(pid, "SIGUSR2");
  } catch {
    throw new Failure(
      exitCodes.conflict,
      `the daemon (process ${pid}) belongs to another user`,
      "ask as that user",
    );
  }
  const record = await follow(cli, options, { stateDir, id, signal });
  if (options.json) {
    const { state, from, to, problem } = record;
    cli.out(JSON.stringify({ state, from, to, problem }));
  } else if (record.state === "kept")
    cli.out(`the daemon runs ${plain(record.to)} now (it was ${record.from})`);
  if (record.state === "kept") return;
  if (options.json) return cli.setExitCode(exitCodes.failed);
  throw new Failure(
    exitCodes.failed,
    record.state === "rolled_back"
      ? `${plain(record.to)} did not come up: ${plain(record.problem)}. ${record.from} runs again`
      : plain(record.problem),
    record.problem.includes("not newer") ? anywayAdvice : "`pinion device status` shows what runs",
  );
}

async function follow(
  cli: Cli,
  options: UpgradeOptions,
  { stateDir, id, signal }: { stateDir: string; id: string; signal: AbortSignal },
): Promise<UpgradeRecord> {
  const startedAt = performance.now();
  let said = "";
  while (!signal.aborted) {
    const record = await readRecord(stateDir);
    if (record?.requestId === id) {
      if (["kept", "rolled_back", "failed"].includes(record.state)) return record;
      const words = wordsOf(record);
      if (words !== said && !options.json) cli.note(words);
      said = words;
    } else if (performance.now() - startedAt > answerMs) {
      throw new Failure(
        exitCodes.failed,
        "the daemon does not answer",
        "`pinion device status` shows its state",
      );
    }
    await sleep(pollMs, signal);
  }
  throw new Failure(
    exitCodes.interrupted,
    "the daemon goes on with the upgrade",
    "`pinion device status` shows its end",
  );
}

function wordsOf({ state, to, running }: UpgradeRecord): string {
  if (state === "preparing") return `fetching ${plain(to)} …`;
  if (state === "waiting") {
    return running === 0
      ? "stopping the daemon …"
      : `waiting for ${running} running program${running === 1 ? "" : "s"} …`;
  }
  return `trying ${plain(to)} …`;
}
