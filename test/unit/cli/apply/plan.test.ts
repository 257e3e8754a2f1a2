import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AgentPlatformSchema, AgentSchema, PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { DeviceSchema } from "#gen/pinion/v1/fleet_pb.js";
import { WatcherSchema } from "#gen/pinion/v1/watcher_pb.js";
import { specOfFields } from "../../../../src/cli/apply/fields/watcher-fields.ts";
import { desiredOf } from "../../../../src/cli/apply/file/desired.ts";
import { parseFile } from "../../../../src/cli/apply/file/file.ts";
import { lengthText } from "../../../../src/cli/apply/file/lengths.ts";
import { makePlan } from "../../../../src/cli/apply/plan/plan.ts";
import type { Kind, Verdict } from "../../../../src/cli/apply/plan/steps.ts";
import type { OrgState } from "../../../../src/cli/apply/state.ts";

const everything: ReadonlySet<Kind> = new Set(["agent", "platform", "watcher"]);
const empty: OrgState = {
  agents: new Map(),
  platforms: new Map(),
  watchers: new Map(),
  devices: [],
  destinations: new Map(),
  hooks: new Map(),
};

function plan(
  text: string,
  state: Partial<OrgState> = {},
  options: {
    verdicts?: [string, Verdict][];
    prune?: boolean;
    only?: ReadonlySet<Kind>;
    env?: Record<string, string>;
  } = {},
) {
  const parsed = parseFile(text, { file: "pinion.toml", env: options.env ?? {} });
  return makePlan(desiredOf(parsed), { ...empty, ...state }, new Map(options.verdicts ?? []), {
    only: options.only ?? everything,
    prune: options.prune ?? false,
    templates: parsed.templates,
  }).steps;
}

const agent = (id: string, rest: object = {}) => create(AgentSchema, { id, name: id, version: 3, ...rest });
const platform = (stableId: string, agentId: string, rest: object = {}) =>
  create(AgentPlatformSchema, { stableId, agentId, kind: "telegram", version: 2, ...rest });

test("a setting that the file does not name is left alone; one that it names is replaced, [] included", () => {
  const state = {
    agents: new Map([["a", agent("a", { settings: { identity: "I", model: "m", guardrails: ["g"] } })]]),
  };
  expect(plan("[agents.a]", state)).toMatchObject([{ action: "noop" }]);
  expect(plan('[agents.a]\nguardrails = []\nmodel = "m"', state)).toMatchObject([
    { action: "update", changed: ["guardrails"], version: 3, fields: [{ before: ["g"], after: [] }] },
  ]);
});

test("no host at all and any host are different things", () => {
  const state = (settings: object) => ({ agents: new Map([["a", agent("a", { settings })]]) });
  const none = "[agents.a]\negress_config = { allowed_hosts = [] }";
  expect(plan(none, state({}))).toMatchObject([{ action: "update" }]);
  expect(plan(none, state({ egressConfig: {} }))).toMatchObject([{ action: "noop" }]);
  expect(plan('[agents.a]\negress_config = "unrestricted"', state({ egressConfig: {} }))).toMatchObject([
    { action: "update", fields: [{ before: { allowed_hosts: [] }, after: "unrestricted" }] },
  ]);
});

test("MCP servers that Pinion adds are not the file's matter", () => {
  const mcpServers = [{ name: "pinion", url: "u", isInjected: true }];
  const state = { agents: new Map([["a", agent("a", { settings: { mcpServers } })]]) };
  expect(plan("[agents.a]\nmcp_servers = []", state)).toMatchObject([{ action: "noop" }]);
});

test("what holds a variable is shown as the file says it, and what was there before is hidden", () => {
  const mcpServers = [{ name: "m", url: "https://u:old@x/?k=old" }];
  const state = { agents: new Map([["a", agent("a", { settings: { mcpServers, identity: "old" } })]]) };
  const text = '[agents.a]\nidentity = "$S"\nmcp_servers = [{ name = "m", url = "$S" }]';
  const steps = plan(text, state, { env: { S: "hush" } });
  expect(JSON.stringify(steps.map(({ fields }) => fields))).not.toMatch(/hush|old/);
  expect(steps[0]!.fields).toMatchObject([
    { field: "identity", before: "(hidden)", after: "$S" },
    { field: "mcp_servers", before: "(hidden)", after: [{ url: "$S" }] },
  ]);
  const plain = plan("[agents.a]\nmcp_servers = []", state);
  expect(JSON.stringify(plain.map(({ fields }) => fields))).not.toContain("old");
});

const twoPlatforms = `
[[agents.a.platforms]]
id = "hook"
kind = "webhook"
config.url = "$HOOK_URL"
[[agents.a.platforms]]
id = "chat"
kind = "discord"
config = { application_id = "$APP", room = "lobby", bot_token = "secret://BOT" }`;

test("no plan shows what a variable of a platform holds, nor what it replaces, and its file's own values it does", () => {
  const env = { HOOK_URL: "https://hooks.example/hush-hook", APP: "hush-app" };
  const verdict = (changedFields: string[]): Verdict => ({
    outcome: "updated",
    willRestart: true,
    changedFields,
  });
  const steps = plan(
    twoPlatforms,
    {
      agents: new Map([["a", agent("a")]]),
      platforms: new Map([
        // The state of an older version, readable by all members.
        ["hook", platform("hook", "a", { kind: "webhook", config: { url: "https://hooks.example/old" } })],
        [
          "chat",
          platform("chat", "a", { kind: "discord", config: { application_id: "old-app", room: "hall" } }),
        ],
      ]),
    },
    {
      env,
      verdicts: [
        ["hook", verdict(["config.url", "secrets.url"])],
        ["chat", verdict(["config.application_id", "config.room", "secrets.bot_token"])],
      ],
    },
  );
  expect(steps.slice(1).map(({ fields }) => fields)).toEqual([
    [{ field: "config.url", before: "(hidden)", after: "(hidden)" }],
    [
      { field: "config.application_id", before: "(hidden)", after: "$APP" },
      { field: "config.room", before: "hall", after: "lobby" },
      { field: "config.bot_token", before: undefined, after: "secret://BOT" },
    ],
  ]);
  expect(JSON.stringify(steps.map(({ fields }) => fields))).not.toMatch(/hush|old/i);
});

test("a watcher is whole: what the file does not say has its default", () => {
  const [wanted] = plan('[[agents.a.watchers]]\nslug = "w"\nprompt = "x"').filter(
    ({ kind }) => kind === "watcher",
  );
  if (wanted?.kind !== "watcher") throw new Error("no watcher");
  const spec = { ...specOfFields(wanted.wanted!.fields), schedule: "0 9 * * *", deviceId: "d-1" };
  const watcher = create(WatcherSchema, { slug: "w", spec, version: 5 });
  const devices = [create(DeviceSchema, { id: "d-1", label: "mac" })];
  const steps = plan('[[agents.a.watchers]]\nslug = "w"\nprompt = "x"', {
    agents: new Map([["a", agent("a")]]),
    watchers: new Map([["w", watcher]]),
    devices,
  });
  expect(steps[1]).toMatchObject({
    action: "update",
    version: 5,
    changed: ["device", "schedule"],
    fields: [
      { field: "device", before: "mac", after: "" },
      { field: "schedule", before: "0 9 * * *", after: "" },
    ],
  });
});

test("the server's word on a platform counts, and one whose start failed is started again", () => {
  const text = '[[agents.a.platforms]]\nid = "p"\nkind = "telegram"\nconfig.bot_token = "$T"';
  const state = (status: PlatformStatus) => ({
    agents: new Map([["a", agent("a")]]),
    platforms: new Map([["p", platform("p", "a", { status, secrets: [{ name: "bot_token" }] })]]),
  });
  const verdict = (outcome: Verdict["outcome"], changedFields: string[] = []): [string, Verdict][] => [
    ["p", { outcome, willRestart: outcome === "updated", changedFields }],
  ];
  const options = { env: { T: "hush" }, verdicts: verdict("updated", ["secrets.bot_token"]) };
  expect(plan(text, state(PlatformStatus.RUNNING), options)[1]).toMatchObject({
    action: "update",
    willRestart: true,
    version: 2,
    fields: [{ field: "config.bot_token", before: "(hidden)", after: "(hidden)" }],
  });
  const same = { ...options, verdicts: verdict("noop") };
  expect(plan(text, state(PlatformStatus.RUNNING), same)[1]).toMatchObject({ action: "noop" });
  expect(plan(text, state(PlatformStatus.FAILED), same)[1]).toMatchObject({
    action: "update",
    note: expect.stringContaining("started again"),
  });
});

test("what the file does not have is drift, and with prune goes in the order that leaves nothing behind", () => {
  const state = {
    agents: new Map([
      ["old", agent("old")],
      ["main", agent("main", { isDefault: true })],
    ]),
    platforms: new Map([["p", platform("p", "old")]]),
    watchers: new Map([["w", create(WatcherSchema, { slug: "w", spec: { agentId: "old" } })]]),
  };
  const summary = (steps: ReturnType<typeof plan>) => steps.map(({ action, id }) => `${action} ${id}`);
  expect(summary(plan("", state))).toEqual(["drift w", "drift p", "drift old", "drift main"]);
  expect(summary(plan("", state, { prune: true }))).toEqual([
    "delete w",
    "delete p",
    "delete old",
    "drift main",
  ]);
  expect(summary(plan("", state, { prune: true, only: new Set(["platform"]) }))).toEqual(["delete p"]);
});

test.each([
  [0, "0s"],
  [90_000, "1m30s"],
  [86_400_000, "24h"],
  [129_600_000, "36h"],
  [2 * 86_400_000 + 1, "2d1ms"],
])("%d ms are written %s", (ms, text) => {
  expect(lengthText(ms)).toBe(text);
});
