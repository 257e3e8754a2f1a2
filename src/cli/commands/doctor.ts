import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { dataDir, optionsOf, proxyOption } from "../context.ts";
import { configFileOf, stateDirOf } from "../device/state-dir.ts";
import { checkBus } from "../doctor/bus.ts";
import type { Check } from "../doctor/check.ts";
import { checkClient } from "../doctor/client.ts";
import { checkConfinement } from "../doctor/confinement.ts";
import { checkDatabase } from "../doctor/database.ts";
import { checkDeviceConfig, checkDeviceState, proxyOfDevice, surroundingsOf } from "../doctor/device.ts";
import { checkServer } from "../doctor/server.ts";
import { exitCodes, Failure } from "../failures.ts";
import { plain } from "../print/table.ts";

type DoctorOptions = {
  databaseUrl?: string;
  confirmClock?: boolean;
  server?: boolean;
  stateDir?: string;
  config?: string;
};

/** `pinion doctor`: checks the usual problems and gives remedies. */
export function addDoctor(program: Command, cli: Cli): void {
  const command = program
    .command("doctor")
    .description("look at everything that is often wrong; exits with 1 if anything is")
    .option("--database-url <url>", "also look at this database (DATABASE_URL)")
    .option("--confirm-clock", "say that the database's clock is right, after it jumped forward")
    .option("--server", "also look at the settings of a server in this environment: ports, certificate, keys")
    .option("--state-dir <dir>", "the device's state; default: the one of `up`, else the daemon's own")
    .option("--config <file>", "the device's configuration; default: the one beside its state")
    .action(async (_options, command: Command) => {
      const options = optionsOf<DoctorOptions>(command);
      const databaseUrl = options.databaseUrl ?? (cli.env.DATABASE_URL || undefined);
      // Also with --database-url: the direct URL for replicas.
      const directUrl = cli.env.DATABASE_DIRECT_URL || databaseUrl;
      if (options.confirmClock && !databaseUrl) {
        throw new Failure(
          exitCodes.usage,
          "--confirm-clock is about a database, and none is named",
          "say which with --database-url or DATABASE_URL",
        );
      }
      const configFile = options.config ?? configFileOf(options.stateDir, cli.env, dataDir(options, cli.env));
      const deviceProxy = proxyOption(options).proxy ?? proxyOfDevice(configFile);
      const checks = [
        ...(await checkClient(cli, options)),
        ...(await checkDeviceState(
          stateDirOf(options.stateDir, cli.env, dataDir(options, cli.env)),
          deviceProxy,
        )),
        ...checkDeviceConfig(
          configFile,
          await surroundingsOf(stateDirOf(options.stateDir, cli.env, dataDir(options, cli.env)), cli.env),
        ),
        ...(await checkConfinement({
          configFile,
          stateDir: stateDirOf(options.stateDir, cli.env, dataDir(options, cli.env)),
          env: cli.env,
        })),
        ...(databaseUrl
          ? await checkDatabase(databaseUrl, { directUrl, confirmClock: options.confirmClock })
          : []),
        ...(options.server ? await checkServer({ ...cli.env, DATABASE_URL: databaseUrl }) : []),
        ...(await checkBus(cli.env)),
      ];
      if (options.json) cli.out(JSON.stringify({ healthy: !checks.some(isRed), checks }, null, 2));
      else printChecks(cli, checks);
      if (checks.some(isRed)) cli.setExitCode(exitCodes.failed);
    });
  examples(command, [
    ["doctor", "server, token, clock and device of this machine"],
    ["doctor --database-url postgres://db/pinion", "also the database"],
    ["doctor --server", "where a server is to run: its settings, port and certificate, and DATABASE_URL"],
  ]);
}

function isRed(check: Check): boolean {
  return check.verdict === "bad";
}

function printChecks(cli: Cli, checks: readonly Check[]): void {
  const { green, yellow, red, dim } = cli.colors;
  const marks = { good: green("✓"), doubtful: yellow("!"), bad: red("✗"), absent: dim("–") };
  const width = Math.max(...checks.map((check) => check.name.length));
  for (const check of checks) {
    cli.out(`${marks[check.verdict]} ${check.name.padEnd(width)}  ${plain(check.found)}`);
    if (check.advice) cli.out(`  ${" ".repeat(width)}  ${dim("→")} ${check.advice}`);
  }
}
