import type { Inspection } from "../../store/pg/inspect.ts";
import { systemCode } from "../failures.ts";
import { formatLength } from "../print/lengths.ts";
import type { Check } from "./check.ts";

const oldestVersionNumber = 150_000;
/** Minimum reported clock difference, in ms. */
const skewMsMin = 1_000;
/** Maximum round trip in ms; a slower database delays every batch. */
const roundTripMsMax = 20;
/** Maximum share of PostgreSQL's allowed connections. */
const connectionsShareMax = 0.8;

/** Checks connection, version, migrations, clock and durability. */
export async function checkDatabase(
  url: string,
  options: { directUrl?: string | undefined; confirmClock?: boolean | undefined } = {},
): Promise<Check[]> {
  // The driver is loaded only for a check of a database.
  const { confirmClock, inspect } = await import("../../store/pg/inspect.ts");
  const wrong = checkUrl(url);
  if (wrong) return [wrong];
  let found: Inspection;
  let isConfirmed = false;
  try {
    if (options.confirmClock) isConfirmed = await confirmClock(url, "pinion doctor");
    found = await inspect(url);
  } catch (error) {
    return [unreachable(url, error)];
  }
  return [
    {
      name: "database",
      verdict: found.roundTripMs > roundTripMsMax ? "doubtful" : "good",
      found: `answers in ${formatLength(found.roundTripMs)}`,
      ...(found.roundTripMs > roundTripMsMax ? { advice: "put the server nearer to its database" } : {}),
    },
    checkVersion(found),
    checkMigrations(found),
    ...checkDefaults(found),
    checkClock(found),
    ...checkClockJump(found, isConfirmed),
    checkDurability(found),
    checkReplication(found),
    checkConnections(found),
    ...(options.directUrl ? [await checkNotifications(url, options.directUrl)] : []),
  ];
}

/** Checks the delivery of LISTEN and NOTIFY, used by the bus. */
async function checkNotifications(url: string, listenUrl: string): Promise<Check> {
  const { hearsNotifications } = await import("../../store/pg/inspect.ts");
  const isHeard = await hearsNotifications({ url, listenUrl }).catch(() => false);
  if (isHeard)
    return { name: "notifications", verdict: "good", found: "what one connection announces, another hears" };
  return {
    name: "notifications",
    verdict: "bad",
    found: "what one connection announces, another does not hear",
    advice: "set DATABASE_DIRECT_URL to the same database without a pooler; LISTEN does not work through one",
  };
}

/** SQLSTATE of a wrong password, of a missing user's authorisation, and of a missing database. */
const advices: Record<string, string> = {
  "28P01": "the password or the user is wrong",
  "28000": "this user may not connect: see pg_hba.conf",
  "3D000": "make the database first: `createdb`, or `create database …` in psql",
  ECONNREFUSED: "nobody listens there: is PostgreSQL running, and is the port right?",
  ENOTFOUND: "the host's name is not known",
};

/** The problem of the URL itself; a driver's own message would be unclear. */
function checkUrl(url: string): Check | undefined {
  if (/^postgres(ql)?:\/\//.test(url)) return undefined;
  const scheme = /^[a-z][a-z0-9+.-]*(?=:\/\/)/i.exec(url)?.[0];
  return {
    name: "database URL",
    verdict: "bad",
    found: scheme ? `${scheme}:// is not the URL of a PostgreSQL` : "that is no URL of a PostgreSQL",
    advice: "write it like postgres://user:password@host:5432/database",
  };
}

function unreachable(url: string, error: unknown): Check {
  const code = systemCode(error) ?? "";
  return {
    name: "database",
    verdict: "bad",
    found: `no way in at ${withoutPassword(url)}: ${error instanceof Error ? error.message || code : String(error)}`,
    advice: advices[code] ?? "check the URL: postgres://user:password@host:5432/database",
  };
}

function withoutPassword(text: string): string {
  try {
    const url = new URL(text);
    if (url.password) url.password = "…";
    return decodeURI(url.href);
  } catch {
    return "that URL";
  }
}

function checkVersion(found: Inspection): Check {
  if (found.versionNumber >= oldestVersionNumber) {
    return { name: "version", verdict: "good", found: `PostgreSQL ${found.version}` };
  }
  return {
    name: "version",
    verdict: "bad",
    found: `PostgreSQL ${found.version} is too old`,
    advice: "Pinion needs PostgreSQL 15 or newer",
  };
}

function checkMigrations(found: Inspection): Check {
  if (found.migrationsUnknown.length > 0) {
    return {
      name: "schema",
      verdict: "bad",
      found: `of a newer Pinion: ${found.migrationsUnknown.join(", ")}`,
      advice: "use that version",
    };
  }
  if (found.migrationsPending.length === 0) return { name: "schema", verdict: "good", found: "up to date" };
  return {
    name: "schema",
    verdict: "bad",
    found: `${found.migrationsPending.length} migrations are missing: ${found.migrationsPending.join(", ")}`,
    advice: "`pinion migrate` applies them; so does a starting server",
  };
}

/**
 * Pinion's connections set these themselves; through a pooler, a statement outside a transaction
 * gets the database's defaults.
 */
function checkDefaults({ oddDefaults }: Inspection): Check[] {
  if (oddDefaults.length === 0) return [];
  const names = oddDefaults.map((setting) => setting.slice(0, setting.indexOf("="))).join(", ");
  return [
    {
      name: "defaults",
      verdict: "doubtful",
      found: `the database or the role sets ${oddDefaults.join("; ")}`,
      advice: `Pinion sets ${names} on its own connections; behind a pooler reset them: alter database … reset …, or alter role … in database … set …`,
    },
  ];
}

function checkClock(found: Inspection): Check {
  const skewMs = found.now.getTime() - (found.receivedAt.getTime() - found.roundTripMs / 2);
  if (Math.abs(skewMs) < skewMsMin)
    return { name: "database clock", verdict: "good", found: "agrees with this machine" };
  return {
    name: "database clock",
    verdict: "doubtful",
    found: `${formatLength(Math.abs(skewMs))} ${skewMs > 0 ? "ahead of" : "behind"} this machine`,
    advice: "it decides when things are due; let NTP set both clocks",
  };
}

function checkClockJump(found: Inspection, isConfirmed: boolean): Check[] {
  const name = "clock jump";
  if (isConfirmed)
    return [{ name, verdict: "good", found: "confirmed: the replicas take the database's clock as it is" }];
  if (!found.clockJump) return [];
  const { noticedAt, expectedAt } = found.clockJump;
  const by = formatLength(noticedAt.getTime() - expectedAt.getTime());
  return [
    {
      name,
      verdict: "bad",
      found: `the database's clock jumped forward by ${by}, to ${noticedAt.toISOString()}: nothing is deleted, and no due slot is recorded`,
      advice:
        "set the database's clock right; if it is right, say so: `pinion doctor --database-url … --confirm-clock`",
    },
  ];
}

function checkDurability(found: Inspection): Check {
  if (found.isReadOnly) {
    return {
      name: "writes",
      verdict: "bad",
      found: "the database takes no writes",
      advice: "it is a standby or set to read-only; use the primary",
    };
  }
  if (found.fsync !== "on") {
    return {
      name: "durability",
      verdict: "bad",
      found: `fsync is ${found.fsync}: a power cut can ruin the database`,
      advice: "set fsync = on",
    };
  }
  if (found.synchronousCommit === "off") {
    return {
      name: "durability",
      verdict: "bad",
      found: "synchronous_commit is off: a result that was acknowledged to its device can be lost",
      advice: "set synchronous_commit = on",
    };
  }
  return { name: "durability", verdict: "good", found: "fsync and synchronous_commit are on" };
}

/** Values with an acknowledged commit also on a standby. */
const waitsForStandby = new Set(["on", "remote_apply"]);

/** The loss in a failover with the current settings. */
export function checkReplication(
  found: Pick<Inspection, "replication" | "synchronousCommit" | "isReadOnly">,
): Check {
  const name = "replication";
  const { synchronousStandbyNames, standbys } = found.replication;
  const devicesKeep =
    "devices keep what was acknowledged for a day and offer it again; turns and changes by people are lost";
  if (found.isReadOnly) return { name, verdict: "absent", found: "this is no primary" };
  if (standbys.length === 0 && !synchronousStandbyNames)
    return { name, verdict: "absent", found: "no standby: there is nothing to fail over to" };
  const synchronous = standbys.filter((standby) => standby.isSynchronous);
  const list = standbys.map((standby) => standby.name || "a standby").join(", ") || "none is connected";
  if (synchronousStandbyNames && synchronous.length === 0) {
    return {
      name,
      verdict: "bad",
      found: `commits wait for a standby of "${synchronousStandbyNames}", and none is there (${list})`,
      advice: "start the standby, or change synchronous_standby_names; until then every write waits",
    };
  }
  if (synchronous.length > 0 && waitsForStandby.has(found.synchronousCommit)) {
    const names = synchronous.map((standby) => standby.name).join(", ");
    return { name, verdict: "good", found: `a failover to ${names} loses nothing that was acknowledged` };
  }
  if (synchronous.length > 0) {
    return {
      name,
      verdict: "doubtful",
      found: `a standby is synchronous, but synchronous_commit is ${found.synchronousCommit} and does not wait until it has the commit on its disk; a failover loses the last moments`,
      advice: `set synchronous_commit = on; ${devicesKeep}`,
    };
  }
  const lags = standbys.map(({ lagBytes, lagMs }) =>
    lagBytes === null
      ? "by an unknown length"
      : `by ${Math.round(lagBytes / 1024)} KiB${lagMs ? ` (${formatLength(lagMs)})` : ""}`,
  );
  return {
    name,
    verdict: "doubtful",
    found: `asynchronous (${list}), behind ${lags.join(", ")} now: a failover loses that`,
    advice: `name a standby in synchronous_standby_names where that is too much; ${devicesKeep}`,
  };
}

function checkConnections(found: Inspection): Check {
  const text = `${found.connectionsUsed} of ${found.connectionsMax} in use`;
  if (found.connectionsUsed < found.connectionsMax * connectionsShareMax) {
    return { name: "connections", verdict: "good", found: text };
  }
  return {
    name: "connections",
    verdict: "doubtful",
    found: text,
    advice: "raise max_connections, or lower PINION_DATABASE_CONNECTIONS",
  };
}
