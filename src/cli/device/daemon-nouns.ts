/**
 * The commands of the first level of `piniond`, the daemon alone; its build uses these in place of
 * commands/nouns.ts.
 */
import type { Noun } from "../commands/nouns.ts";

export const nouns: readonly Noun[] = [
  {
    name: "device",
    description: "this machine as a device: enrol it, run its daemon, install it as a service",
    load: async () => (await import("../commands/device.ts")).addDevice,
  },
  {
    name: "doctor",
    description: "look at everything that is often wrong; exits with 1 if anything is",
    load: async () => (await import("../commands/doctor.ts")).addDoctor,
  },
  {
    name: "version",
    description: "which build this is: version, commit, kind, system",
    load: async () => (await import("../commands/version.ts")).addVersion,
  },
  {
    name: "completion",
    description: "print what makes a shell complete commands, options, and names of things",
    load: async () => (await import("../commands/completion.ts")).addCompletion,
  },
];
