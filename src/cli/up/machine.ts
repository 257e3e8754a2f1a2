import { hostname } from "node:os";
import { join, resolve } from "node:path";
import {
  createClients,
  type DeviceConfig,
  enroll,
  findIdentity,
  isPermissionDenied,
  isUnauthenticated,
  loadLastingConfig,
} from "@pinion/client";
import { type ReplicaConfig, replicaConfig } from "../../config.ts";
import { Refusal } from "../../errors.ts";
import { boundHeapGrowth } from "../../replica/heap-growth.ts";
import { createLogger, type Logger } from "../../telemetry/log.ts";
import { LogDestination } from "../../telemetry/log-destination.ts";
import type { Cli } from "../cli.ts";
import { type Clients, dataDir, defaultPort, type GlobalOptions, readLine } from "../context.ts";
import {
  openLog,
  prepareLog,
  removeUrl,
  requirePrivateDirectory,
  writeToken,
  writeUrl,
} from "../data-files.ts";
import { writeDeviceConfigOnce } from "../device/config.ts";
import { DeviceLog } from "../device/log.ts";
import { upConfigFile, upStateDir } from "../device/state-dir.ts";
import { exitCodes, Failure } from "../failures.ts";
import { secretKeys } from "../secret-keys.ts";
import { surviveUncaught } from "../uncaught.ts";
import { DaemonProcess, deviceLogFile } from "./daemon-process.ts";
import { listenFailure, requireFreePort } from "./listening.ts";
import { requireUsableDatabase } from "./usable-database.ts";
import type { UpView } from "./view.ts";

export type UpOptions = GlobalOptions & {
  port?: number;
  host?: string;
  databaseUrl?: string;
  once?: boolean;
  within: string;
  run: boolean;
};

/** All parts started by `up`. */
export type Machine = {
  url: string;
  clients: Clients;
  deviceId: string;
  deviceLabel: string;
  deviceLog: DeviceLog;
  configFile: string;
  /** The configuration in force at the start. */
  deviceConfig: DeviceConfig;
  /** Resolves when the server has stopped by itself. */
  serverClosed: Promise<void>;
};

export type Starting = {
  view: UpView;
  /** Holds the started parts in order; they are stopped in reverse order. */
  parts: AsyncDisposableStack;
  signal: AbortSignal;
  /** Reports a failure that ends everything, also after the start. */
  fail(failure: Failure): void;
};

/** Time limit of the server's stop in ms; daemon and database need the rest of the 25 s. */
const serverStopMs = 8_000;
const connectMsMax = 20_000;
const tokenCheckMs = 5_000;
/** The advice in the error of a locked data directory, replaced by the command line's own. */
const inUse = /\s*Stop it, or choose another data directory\.$/;

/** Starts database, server and daemon, each after the one before. */
export async function startMachine(cli: Cli, options: UpOptions, starting: Starting): Promise<Machine> {
  const data = dataDir(options, cli.env);
  requirePrivateDirectory(data);
  const databaseUrl = options.databaseUrl ?? (cli.env.DATABASE_URL || undefined);
  const config = {
    ...replicaConfig({
      ...cli.env,
      DATABASE_URL: databaseUrl ?? "postgres://filled-in-below",
      PINION_HOST: options.host ?? cli.env.PINION_HOST,
      PINION_PORT:
        options.port === undefined ? cli.env.PINION_PORT || String(defaultPort) : String(options.port),
      PINION_SECRET_KEYS: secretKeys(data, cli.env, { isCreated: databaseUrl === undefined }),
      PINION_SHUTDOWN_MS: cli.env.PINION_SHUTDOWN_MS || String(serverStopMs),
    }),
  };
  // Before the database, whose start takes seconds: a taken port is the most frequent error.
  await requireFreePort(config.host, config.port);
  const configFile = resolve(upConfigFile(data));
  writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: process.cwd() });
  // Also before the database: the daemon needs the file, which people edit by hand. A mistake in a
  // file that was good once stops nothing; the daemon goes on with the earlier content.
  const { config: deviceConfig, problem } = loadLastingConfig(configFile, resolve(upStateDir(data)));
  if (problem) starting.view.note(`device.toml is wrong, and the one before it stays in force: ${problem}`);
  const log = fileLogger(cli, data);
  const url = databaseUrl ? await external(databaseUrl, starting) : await embedded(data, log, starting);
  config.databaseUrl = url;
  config.directDatabaseUrl = cli.env.DATABASE_DIRECT_URL || url;
  starting.signal.throwIfAborted();
  // A daemon of an earlier start connects as soon as the server is up; its log lines from here on
  // count.
  const logStart = prepareLog(deviceLogFile(data));
  const server = await serve({ cli, options, config, data, log }, starting);
  starting.signal.throwIfAborted();
  return {
    ...server,
    ...(await device(cli, { server, data, configFile, logStart }, starting)),
    deviceConfig,
  };
}

async function external(databaseUrl: string, { view }: Starting): Promise<string> {
  await requireUsableDatabase(databaseUrl);
  view.step("database", "the one of DATABASE_URL");
  return databaseUrl;
}

/** The terminal is for the run; server and database log to a file. */
function fileLogger(cli: Cli, data: string): Logger {
  const path = join(data, "server.log");
  prepareLog(path);
  const destination = new LogDestination(openLog(path));
  return createLogger({ level: cli.env.PINION_LOG_LEVEL || "info", name: "pinion", destination });
}

async function embedded(data: string, log: Logger, { view, parts }: Starting): Promise<string> {
  const { startEmbedded } = await import("../../store/pg/embedded/cluster.ts");
  const database = await startEmbedded({ dataDir: data, log }).catch((error) => {
    throw inUseFailure(error);
  });
  parts.defer(() => database.stop());
  const how = {
    started: "started",
    restarted: "restarted",
    reattached: "still running from an earlier start",
  };
  view.step("database", `PostgreSQL in ${data}, ${how[database.origin]}`, { port: database.port });
  return database.url;
}

/** The Failure for a data directory in use by another Pinion; other errors unchanged. */
function inUseFailure(error: unknown): unknown {
  if (!(error instanceof Refusal) || !inUse.test(error.message)) return error;
  return new Failure(
    exitCodes.conflict,
    error.message.replace(inUse, ""),
    "stop that one, or give this one its own place with --data (`npm start -- --port 8080 --data ./second`)",
  );
}

type Server = { url: string; clients: Clients; serverClosed: Promise<void> };

type ServerOptions = { cli: Cli; options: UpOptions; config: ReplicaConfig; data: string; log: Logger };

async function serve(
  { cli, options, config, data, log }: ServerOptions,
  { view, parts }: Starting,
): Promise<Server> {
  const { startReplica } = await import("../../replica/replica.ts");
  const heap = boundHeapGrowth();
  const keepBootstrapToken = (token: string) => {
    writeToken(data, token);
  };
  const replica = await startReplica(config, { log, keepBootstrapToken, ...heap }).catch((error) => {
    throw listenFailure(error, config.port);
  });
  parts.use(surviveUncaught(replica));
  parts.defer(() => replica.stop());
  writeUrl(data, replica.url);
  parts.defer(() => removeUrl(data));
  view.step("server", replica.url, { url: replica.url, replica_id: replica.replicaId });
  // This database's own token takes precedence over the environment's, perhaps for another server.
  const token = options.token ?? readLine(join(data, "token")) ?? cli.env.PINION_TOKEN;
  if (!token) {
    throw new Failure(
      exitCodes.unauthenticated,
      `this database was set up before, and ${join(data, "token")} is gone`,
      "put a token with all scopes there, or give it with --token",
    );
  }
  const clients = createClients({ url: replica.url, token });
  parts.defer(() => clients.close());
  return { url: replica.url, clients, serverClosed: replica.closed };
}

type DeviceOptions = { server: Server; data: string; configFile: string; logStart: number };

async function device(
  cli: Cli,
  { server: { url, clients }, data, configFile, logStart }: DeviceOptions,
  { view, parts, signal, fail }: Starting,
): Promise<Pick<Machine, "deviceId" | "deviceLabel" | "deviceLog" | "configFile">> {
  const stateDir = resolve(upStateDir(data));
  const identity = await identityOnce(clients, { url, stateDir });
  const daemon = new DaemonProcess({
    data,
    url,
    stateDir,
    configFile,
    env: cli.env,
    onChange: (message) => view.note(message),
    onFailure: fail,
  });
  const reading = new AbortController();
  const deviceLog = new DeviceLog(daemon.logFile, { fromByte: logStart, signal: reading.signal });
  parts.defer(async () => {
    await daemon.stop();
    // The daemon's last lines report the end of its runs.
    reading.abort();
    await deviceLog.closed();
  });
  // A locked state directory is no failure: the supervisor handles the holder of the lock.
  const outcome = deviceLog.next(
    (event) => event.type === "connected" || (event.type === "fatal" && event.error !== "locked"),
    connectMsMax,
    signal,
  );
  daemon.start();
  const event = await outcome;
  signal.throwIfAborted();
  if (event?.type !== "connected") {
    throw new Failure(
      exitCodes.failed,
      event?.message ?? `the device did not connect within ${connectMsMax / 1000} s`,
      `its log: ${daemon.logFile}`,
    );
  }
  const label = (await clients.fleet.getDevice({ deviceId: identity.deviceId })).device?.label ?? hostname();
  const holder = await daemon.inCharge(signal);
  signal.throwIfAborted();
  const { pid, isTakenOver } = holder!;
  view.step(
    "device",
    `${label}, ${isTakenOver ? `daemon of an earlier start taken over (process ${pid})` : `daemon in process ${pid}`}`,
    { device_id: identity.deviceId, daemon_pid: pid, taken_over: isTakenOver },
  );
  return { deviceId: identity.deviceId, deviceLabel: label, deviceLog, configFile };
}

/**
 * The identity in the data directory; enrols this machine if the identity is missing or refused by
 * the server.
 */
async function identityOnce(
  clients: Clients,
  { url, stateDir }: { url: string; stateDir: string },
): Promise<{ deviceId: string }> {
  const known = await findIdentity(stateDir);
  if (known && (await isTaken(url, known.token))) return known;
  const { joinCode } = await clients.fleet.createJoinCode({});
  return enroll({ url, joinCode, label: hostname(), stateDir });
}

async function isTaken(url: string, token: string): Promise<boolean> {
  const clients = createClients({ url, token });
  try {
    await clients.device.listMyWatchers({ pageSize: 1 }, { timeoutMs: tokenCheckMs });
    return true;
  } catch (error) {
    if (isUnauthenticated(error) || isPermissionDenied(error)) return false;
    throw error;
  } finally {
    clients.close();
  }
}
