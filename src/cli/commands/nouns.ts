/**
 * The commands of the first level. In `piniond`, device/daemon-nouns.ts replaces this module
 * (scripts/lib/bundle.ts).
 */
import type { Command } from "commander";
import type { Cli } from "../cli.ts";

/**
 * A command of the first level. Its module, with all imports, is loaded when the command is used.
 */
export type Noun = {
  name: string;
  /** Equal to the text in the module; a test compares both. */
  description: string;
  load(): Promise<(program: Command, cli: Cli) => void>;
};

/** In the order of the help. */
export const nouns: readonly Noun[] = [
  {
    name: "up",
    description: "start everything on this machine: database, server, this device, and a first run",
    load: async () => (await import("./up.ts")).addUp,
  },
  {
    name: "serve",
    description: "run one replica of the server; any number may share one PostgreSQL",
    load: async () => (await import("./serve.ts")).addServe,
  },
  {
    name: "device",
    description: "this machine as a device: enrol it, run its daemon, install it as a service",
    load: async () => (await import("./device.ts")).addDevice,
  },
  {
    name: "worker",
    description:
      "run a fleet worker until Ctrl-C: it takes the org's runs that are pinned to no device, with a service's token",
    load: async () => (await import("./worker.ts")).addWorker,
  },
  {
    name: "apply",
    description:
      "make agents, destinations, platforms, watchers, hooks and labels of devices what a file says; shows the plan first, and asks",
    load: async () => (await import("../apply/command.ts")).addApply,
  },
  {
    name: "pull",
    description:
      "write a file that describes the org's agents, destinations, platforms, watchers, hooks and labels of devices, for `pinion apply`",
    load: async () => (await import("../apply/pull.ts")).addPull,
  },
  {
    name: "agents",
    description: "who does the work: identity, model, tools, limits",
    load: async () => (await import("./agents/agents.ts")).addAgents,
  },
  {
    name: "platforms",
    description: "chat platforms that agents answer on",
    load: async () => (await import("./agents/platforms.ts")).addPlatforms,
  },
  {
    name: "watchers",
    description: "standing instructions: a prompt, a schedule, a device",
    load: async () => (await import("./watchers/watchers.ts")).addWatchers,
  },
  {
    name: "hooks",
    description: "addresses at which something else starts a watcher",
    load: async () => (await import("./watchers/hooks.ts")).addHooks,
  },
  {
    name: "destinations",
    description: "where results of watchers are sent",
    load: async () => (await import("./destinations/destinations.ts")).addDestinations,
  },
  {
    name: "runs",
    description: "executions of watchers",
    load: async () => (await import("./runs/runs.ts")).addRuns,
  },
  {
    name: "bulk",
    description: "cancels, retries and replays of many runs, which go on in the background",
    load: async () => (await import("./runs/bulk.ts")).addBulk,
  },
  {
    name: "windows",
    description: "the stored results of watchers",
    load: async () => (await import("./runs/windows.ts")).addWindows,
  },
  {
    name: "usage",
    description: "what runs used: tokens and cost, by the agents' own figures",
    load: async () => (await import("./orgs/usage.ts")).addUsage,
  },
  {
    name: "turns",
    description: "messages to agents, and their replies",
    load: async () => (await import("./turns/turns.ts")).addTurns,
  },
  {
    name: "conversations",
    description: "what was said to agents, and what they remember of it",
    load: async () => (await import("./turns/conversations.ts")).addConversations,
  },
  {
    name: "devices",
    description: "the machines that runs are pinned to",
    load: async () => (await import("./devices/devices.ts")).addDevices,
  },
  {
    name: "tokens",
    description: "what people and services identify themselves with",
    load: async () => (await import("./orgs/tokens.ts")).addTokens,
  },
  {
    name: "sign-ins",
    description: "browsers that are signed in to the web page",
    load: async () => (await import("./orgs/sign-ins.ts")).addSignIns,
  },
  {
    name: "orgs",
    description: "orgs, and who belongs to them",
    load: async () => (await import("./orgs/orgs.ts")).addOrgs,
  },
  {
    name: "top",
    description:
      "devices and runs live in the terminal: j/k move, enter opens, c cancels, / filters, q quits",
    load: async () => (await import("../top/command.ts")).addTop,
  },
  {
    name: "events",
    description: "what happened, oldest first; with --follow also what happens",
    load: async () => (await import("./orgs/events.ts")).addEvents,
  },
  {
    name: "doctor",
    description: "look at everything that is often wrong; exits with 1 if anything is",
    load: async () => (await import("./doctor.ts")).addDoctor,
  },
  {
    name: "migrate",
    description: "bring a database to this version's schema; `up` and `serve` do so by themselves",
    load: async () => (await import("./migrate.ts")).addMigrate,
  },
  {
    name: "secrets",
    description: "the secrets of the org without their values, and the keys under which they are kept",
    load: async () => (await import("./orgs/secrets.ts")).addSecrets,
  },
  {
    name: "login",
    description: "keep a server and a token of it as a context, which commands use from any directory",
    load: async () => (await import("./login.ts")).addLogin,
  },
  {
    name: "logout",
    description: "forget a context and its token; the token itself stays good until it is revoked",
    load: async () => (await import("./login.ts")).addLogout,
  },
  {
    name: "context",
    description: "the servers that you signed in to, and which is meant",
    load: async () => (await import("./contexts.ts")).addContexts,
  },
  {
    name: "version",
    description: "which build this is: version, commit, kind, system",
    load: async () => (await import("./version.ts")).addVersion,
  },
  {
    name: "completion",
    description: "print what makes a shell complete commands, options, and names of things",
    load: async () => (await import("./completion.ts")).addCompletion,
  },
];
