import { existsSync } from "node:fs";
import { homedir, hostname } from "node:os";
import {
  enroll,
  forgetIdentity,
  installedAgents,
  isUnauthenticated,
  loadConfig,
  type ProxySetting,
} from "@pinion/client";
import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { optionsOf, proxyOption, serverUrl } from "../context.ts";
import { writeWhole } from "../data-files.ts";
import { writeDeviceConfigOnce } from "../device/config.ts";
import { addConformance } from "../device/conformance-command.ts";
import type { DeviceOptions } from "../device/daemon.ts";
import { addInstall } from "../device/install.ts";
import { daemonPid, ownConfigFile, ownStateDir } from "../device/state-dir.ts";
import { addUpgrade } from "../device/upgrade/command.ts";
import { exitCodes, Failure } from "../failures.ts";

/** `pinion device …`: this machine as a device. */
export function addDevice(program: Command, cli: Cli): void {
  const device = program
    .command("device")
    .description("this machine as a device: enrol it, run its daemon, install it as a service");
  addEnroll(device, cli);
  addRun(device, cli);
  addUpgrade(device, cli);
  addConformance(device, cli);
  addInstall(device, cli);
}

function addEnroll(device: Command, cli: Cli): void {
  const command = device
    .command("enroll")
    .description("make this machine a device, with a code of `pinion devices join-code`")
    .requiredOption("--join-code <code>", "good once")
    .option("--label <label>", "shown to people; default: this machine's name")
    .option(
      "--state-dir <dir>",
      "where the identity and the outbox are kept (PINION_STATE_DIR; ~/.local/state/pinion/device)",
    )
    .option("--config <file>", "whose `proxy` is used; default: ~/.config/pinion/device.toml")
    .option("--anew", "as a device of its own, although the state is a copy of another machine's")
    .option("--token-file <file>", "write the token there, not beside the identity; - is standard output")
    .action(async (_options, command: Command) => {
      const options = optionsOf<DeviceOptions>(command);
      const url = serverUrl(options, cli.env);
      const { tokenFile } = options;
      const stateDir = options.stateDir ?? ownStateDir(cli.env);
      if (options.anew) await forgetCopied(stateDir);
      const identity = await enroll({
        url,
        ...proxyOption(options),
        ...(options.proxy === undefined ? configuredProxy(options.config ?? ownConfigFile(cli.env)) : {}),
        joinCode: options.joinCode ?? "",
        label: options.label ?? hostname(),
        stateDir,
        ...(tokenFile === undefined ? {} : { keepToken: (token) => keepToken(cli, tokenFile, token) }),
      }).catch((error) => {
        if (!isUnauthenticated(error)) throw error;
        throw new Failure(
          exitCodes.unauthenticated,
          error.rawMessage,
          "`pinion devices join-code` makes a new one",
        );
      });
      if (options.json) {
        return cli.out(
          JSON.stringify({ device_id: identity.deviceId, org_id: identity.orgId, state_dir: stateDir }),
        );
      }
      const configFile = options.config ?? ownConfigFile(cli.env);
      const isNew = writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: homedir() });
      const agents = isNew ? installedAgents(cli.env).map(({ kind }) => kind) : [];
      cli.out(`this machine is device ${identity.deviceId}`);
      if (identity.sameLabelCount > 0) {
        const count = identity.sameLabelCount;
        cli.note(
          `${cli.colors.yellow("!")} ${count === 1 ? "another device is" : `${count} other devices are`} called "${options.label ?? hostname()}" too; \`pinion devices rename ${identity.deviceId} NAME\` gives this one another name`,
        );
      }
      cli.out(mayRun(configFile));
      if (isNew) {
        const found = agents.length === 0 ? "no agents were found" : `agents found: ${agents.join(", ")}`;
        cli.note(`wrote ${configFile}: it says what this device may execute (${found})`);
      }
      cli.note(`its identity is in ${stateDir}; \`pinion device run\` starts its daemon`);
    });
  examples(command, [["device enroll --url https://pinion.example.org --join-code ABCD-EFGH-JKMN-PQRS", ""]]);
}

/** The executors of the configuration as text for people, or the problem of the file. */
function mayRun(configFile: string): string {
  try {
    const { executors, defaultExecutor } = loadConfig(configFile);
    const kinds = Object.keys(executors).map((kind) =>
      kind === defaultExecutor ? `${kind} (default)` : kind,
    );
    return `it may run: ${kinds.join(", ")}`;
  } catch (error) {
    return `what it may run is not known: ${(error as Error).message}`;
  }
}

function addRun(device: Command, cli: Cli): void {
  const command = device
    .command("run")
    .description(
      "run the daemon until Ctrl-C: it holds the stream, starts what its configuration allows, reports back",
    )
    .option(
      "--state-dir <dir>",
      "where the identity and the outbox are kept (PINION_STATE_DIR; ~/.local/state/pinion/device)",
    )
    .option(
      "--config <file>",
      "what it may execute; default: ~/.config/pinion/device.toml, which the first start writes",
    )
    .option(
      "--backoff-max <length>",
      "longest pause before it dials again; default: 30s or what the client has",
    )
    .option("--stop-grace <length>", "how long running programs have to end at a stop", "10s")
    .option(
      "--flush <length>",
      "how long results may take to be acknowledged at a stop; the rest waits",
      "5s",
    )
    .action(async (_options, command: Command) => {
      const options = optionsOf<DeviceOptions>(command);
      // The daemon is half of the code; the other commands do without.
      const { runDeviceDaemon } = await import("../device/daemon.ts");
      await runDeviceDaemon(cli, options);
    });
  examples(command, [
    ["device run", "a line for everything that happens"],
    ["device run --config ./device.toml --json", "the same as lines of JSON"],
  ]);
}

/** A daemon running with the state would go on with the old identity. */
async function forgetCopied(stateDir: string): Promise<void> {
  const pid = await daemonPid(stateDir);
  if (pid === undefined) return forgetIdentity(stateDir);
  throw new Failure(
    exitCodes.conflict,
    `a daemon (process ${pid}) runs with ${stateDir}`,
    "stop it first, or give --state-dir another directory",
  );
}

function keepToken(cli: Cli, file: string, token: string): void {
  if (file === "-") cli.out(token);
  else writeWhole(file, `${token}\n`, 0o600);
}

/** The configuration's `proxy`, if set. */
function configuredProxy(configFile: string): { proxy?: ProxySetting } {
  if (!existsSync(configFile)) return {};
  const { proxy } = loadConfig(configFile);
  return proxy === undefined ? {} : { proxy };
}
