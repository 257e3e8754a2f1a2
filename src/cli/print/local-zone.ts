import { realpathSync } from "node:fs";
import { explainZone, isZone } from "../../scheduler/schedule/zones.ts";
import type { Environment } from "../cli.ts";
import { exitCodes, Failure } from "../failures.ts";

/**
 * The IANA time zone of this machine: from TZ, in the forms of the C library, or the system's zone.
 * An empty TZ is UTC, as in POSIX. Undefined if TZ names no zone; Node would use UTC or another
 * zone.
 */
export function findLocalZone(env: Environment): string | undefined {
  const text = env.TZ;
  if (text === undefined) {
    const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone as string | undefined;
    return zone !== undefined && isZone(zone) ? zone : zoneOfFile("/etc/localtime");
  }
  const name = text.replace(/^:/, "");
  if (name === "") return "UTC";
  if (name.startsWith("/")) return zoneOfFile(name);
  return isZone(name) ? name : undefined;
}

/** Like {@link findLocalZone}, but throws a Failure with advice instead of undefined. */
export function localTimeZone(env: Environment): string {
  const found = findLocalZone(env);
  if (found !== undefined) return found;
  throw new Failure(
    exitCodes.usage,
    env.TZ === undefined ? "this machine's time zone has no name" : `TZ: ${explainZone(env.TZ)}`,
    "name the zone of the schedule with --zone, or set TZ",
  );
}

/** The zone of a path such as "/usr/share/zoneinfo/Europe/Berlin", also through a link. */
function zoneOfFile(path: string): string | undefined {
  let real = path;
  try {
    real = realpathSync(path);
  } catch {
    // The path itself may still name a zone.
  }
  const name = real.replace(/^.*\/zoneinfo\//, "").replace(/^(posix|right)\//, "");
  return isZone(name) ? name : undefined;
}
