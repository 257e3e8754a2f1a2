import type { Command } from "commander";
import { logFormat, replicaConfig } from "../../config.ts";
import { boundHeapGrowth } from "../../replica/heap-growth.ts";
import type { Embedded } from "../../store/pg/embedded/cluster.ts";
import type { Logger } from "../../telemetry/log.ts";
import { createLogger } from "../../telemetry/log.ts";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { dataDir, optionsOf } from "../context.ts";
import { removeUrl, requirePrivateDirectory, writeToken, writeUrl } from "../data-files.ts";
import { exitCodes } from "../failures.ts";
import { wholeNumber } from "../print/paging.ts";
import { secretKeys } from "../secret-keys.ts";
import { surviveUncaught } from "../uncaught.ts";
import { listenFailure, requireFreePort } from "../up/listening.ts";
import { requireUsableDatabase } from "../up/usable-database.ts";

type ServeOptions = { host?: string; port?: number; databaseUrl?: string };

/** `pinion serve`: one replica, configured by the environment. */
export function addServe(program: Command, cli: Cli): void {
  const command = program
    .command("serve")
    .description("run one replica of the server; any number may share one PostgreSQL")
    .option("--host <address>", "address to listen on (PINION_HOST; 127.0.0.1)")
    .option(
      "--port <n>",
      "port to listen on (PINION_PORT; 7420); 0 lets the system choose",
      wholeNumber(0, 65_535),
    )
    .option(
      "--database-url <url>",
      "PostgreSQL ≥ 15 (DATABASE_URL); without one an embedded PostgreSQL is started",
    )
    .action(async (_options, command: Command) => {
      const options = optionsOf<ServeOptions>(command);
      await serve(cli, options, dataDir(options, cli.env), options.json === true);
    });
  examples(command, [
    ["serve", "with an embedded PostgreSQL in ./.pinion"],
    ["serve --host 0.0.0.0 --database-url postgres://db/pinion", "one of several replicas"],
  ]);
}

async function serve(cli: Cli, options: ServeOptions, data: string, asJson: boolean): Promise<void> {
  const settings = {
    ...cli.env,
    PINION_HOST: options.host ?? cli.env.PINION_HOST,
    PINION_PORT: options.port === undefined ? cli.env.PINION_PORT : String(options.port),
  };
  const log = createLogger({
    level: cli.env.PINION_LOG_LEVEL || "info",
    name: "pinion",
    format: logFormat(cli.env),
  });
  requirePrivateDirectory(data);
  const interrupt = interruptSignal();
  cli.outliveOutput();
  const database = await openDatabaseFor(options, cli, data, log);
  try {
    const config = replicaConfig({
      ...settings,
      DATABASE_URL: database.url,
      PINION_SECRET_KEYS: secretKeys(data, cli.env, { isCreated: database.embedded !== undefined }),
    });
    await requireFreePort(config.host, config.port);
    const { startReplica } = await import("../../replica/replica.ts");
    const heap = boundHeapGrowth();
    let tokenFile: string | undefined;
    const keepBootstrapToken = (token: string) => {
      tokenFile = writeToken(data, token);
    };
    const replica = await startReplica(config, { log, keepBootstrapToken, ...heap }).catch((error) => {
      throw listenFailure(error, config.port);
    });
    using _survival = surviveUncaught(replica);
    try {
      writeUrl(data, replica.url);
      announce(cli, {
        asJson,
        url: replica.url,
        replicaId: replica.replicaId,
        token: replica.bootstrapToken,
        tokenFile,
      });
      const isAsked = await Promise.race([
        replica.closed.then(() => false),
        new Promise<boolean>((done) => {
          interrupt.signal.addEventListener("abort", () => done(true), { once: true });
          if (interrupt.signal.aborted) done(true);
        }),
      ]);
      if (!isAsked) cli.setExitCode(exitCodes.failed);
    } finally {
      removeUrl(data);
      await replica.stop();
    }
  } finally {
    await database.embedded?.stop();
    interrupt.dispose();
  }
}

type ServedDatabase = { url: string; embedded: Embedded | undefined };

async function openDatabaseFor(
  options: ServeOptions,
  cli: Cli,
  data: string,
  log: Logger,
): Promise<ServedDatabase> {
  const given = options.databaseUrl ?? (cli.env.DATABASE_URL || undefined);
  if (given) {
    await requireUsableDatabase(given);
    return { url: given, embedded: undefined };
  }
  const { startEmbedded } = await import("../../store/pg/embedded/cluster.ts");
  const embedded = await startEmbedded({ dataDir: data, log });
  return { url: embedded.url, embedded };
}

type Announcement = {
  asJson: boolean;
  url: string;
  replicaId: string;
  token: string | undefined;
  /** File of the token. */
  tokenFile: string | undefined;
};

function announce(cli: Cli, { asJson, url, replicaId, token, tokenFile }: Announcement): void {
  if (asJson) {
    cli.out(
      JSON.stringify({
        url,
        replica_id: replicaId,
        // Without a terminal, standard output is a log, kept and read by others.
        ...(token ? { ...(cli.isTerminal ? { bootstrap_token: token } : {}), token_file: tokenFile } : {}),
      }),
    );
    return;
  }
  cli.out(`Pinion listens at ${url} (replica ${replicaId})`);
  if (!token) return;
  if (cli.isTerminal) {
    cli.out(`bootstrap token: ${token}`);
    cli.out(`it is shown only now, and kept in ${tokenFile} (mode 0600)`);
  } else cli.out(`the owner's token is in ${tokenFile} (mode 0600); it is shown on a terminal only`);
}
