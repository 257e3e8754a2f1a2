/** Operating systems by their names in the store, in the enum of the API. */
import { Os } from "#gen/pinion/v1/device_pb.js";
import type { Os as OsName } from "../store/people/devices.ts";

export const osEnum: Record<OsName, Os> = {
  macos: Os.MACOS,
  linux: Os.LINUX,
  windows: Os.WINDOWS,
  ios: Os.IOS,
  android: Os.ANDROID,
  browser: Os.BROWSER,
};

const names = new Map(Object.entries(osEnum).map(([name, os]) => [os, name as OsName]));

/** Undefined for no system, and for a system of a newer version. */
export function osNameOf(os: Os): OsName | undefined {
  return names.get(os);
}
