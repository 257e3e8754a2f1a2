import { z } from "zod";
import * as words from "../../print/words.ts";
import { hookKinds } from "../fields/hook-kinds.ts";

/**
 * The shape of pinion.toml. docs/pinion.schema.json is made from this shape (`pinion apply
 * --print-schema`), so descriptions are for people in an editor. The server's own rules (bounds of
 * lengths, sizes) are checked on the request messages.
 */

const idPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** The problem of an id: empty, or with letters similar to ASCII letters. */
function explainId(value: unknown): string {
  if (value === "") return "an id must not be empty";
  const text = String(value);
  const foreign = [...text].find((character) => character > "\u007e" || character < " ");
  if (foreign !== undefined) {
    const code = foreign.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
    return `${JSON.stringify(text)} holds "${foreign}" (U+${code}), which is not one of a-z, 0-9 and "-"`;
  }
  return `${JSON.stringify(text)} is no id: 1 to 63 of a-z, 0-9 and "-", beginning with a letter or digit`;
}

const id = (meaning: string) =>
  z
    .string()
    .regex(idPattern, { error: (issue) => explainId(issue.input) })
    .describe(meaning);

const length = (meaning: string) =>
  z
    .string()
    .regex(
      /^(\d+(\.\d+)?(ms|min|s|m|h|d|w)\s*)+$/,
      "is no length of time; write it like 90s, 15m, 1h30m or 2d",
    )
    .describe(meaning);

const oneOf = (all: string[], meaning: string) => z.enum(all as [string, ...string[]]).describe(meaning);

const texts = (meaning: string) => z.array(z.string()).describe(meaning);

const mcpServer = z
  .strictObject({
    name: z.string().min(1, "must not be empty").describe("Unique within the agent."),
    url: z.string().describe("Its address."),
  })
  .describe("One MCP server.");

const platform = z
  .strictObject({
    id: z
      .string()
      .regex(/^[a-z0-9-]{1,100}$/, { error: (issue) => explainId(issue.input) })
      .describe("Stable id: the platform is found by it again. Unique within the org."),
    kind: id('What it is, for example "telegram" or "slack".'),
    config: z
      .record(
        z
          .string()
          .regex(/^[a-z][a-z0-9_]{0,63}$/, 'a key is made of a-z, 0-9 and "_" and begins with a letter'),
        z.union([z.string(), z.number(), z.boolean()], "must be a string, a number, true or false"),
      )
      .optional()
      .describe(
        'Its settings as a whole; what is absent is cleared. Secrets as "$VARIABLE" or "secret://NAME".',
      ),
  })
  .describe("A chat platform of the agent.");

const watcher = z
  .strictObject({
    slug: id("Its name in commands; unique within the org."),
    name: z.string().min(1, "must not be empty").optional().describe("Shown to people; default: the slug."),
    prompt: z
      .string()
      .min(1, "must not be empty")
      .optional()
      .describe("What the agent is asked to do. A dollar sign in it is itself, unless substitute is true."),
    prompt_file: z
      .string()
      .min(1, "must not be empty")
      .optional()
      .describe("In place of prompt: a file that holds it, beside this one. Taken as it is."),
    substitute: z
      .boolean()
      .optional()
      .describe("Replace $NAME in the prompt; the values are stored with it and shown. Default: false."),
    schedule: z
      .string()
      .optional()
      .describe('Cron: five fields, six with seconds first, or "@hourly". Default: manual only.'),
    at: z
      .string()
      .optional()
      .describe('In place of schedule: fires once, "2026-12-01T09:00" in time_zone, or with Z or an offset.'),
    every: z
      .string()
      .optional()
      .describe('In place of schedule: fires that often, "90m"; elapsed time, whatever the clocks do.'),
    anchor: z
      .string()
      .optional()
      .describe(
        "A moment that every counts from. Default: the beginning of 1970, so that 1h is the full hour.",
      ),
    time_zone: z
      .string()
      .optional()
      .describe('IANA zone of the schedule, for example "Europe/Berlin". Default: UTC.'),
    device: z
      .string()
      .optional()
      .describe("The device it is pinned to, by label or id. Default: none, fleet workers take it."),
    selector: z
      .string()
      .optional()
      .describe(
        'In place of device: a condition in CEL, \'os == "macos" && "gpu" in labels\'. Default: none.',
      ),
    spread: oneOf(words.spreadMode.all, "On how many of the devices that match. Default: one.").optional(),
    group: z.string().optional().describe("Its concurrency group, of which few runs are active at once."),
    max: z.int().min(1).max(1000).optional().describe("Active runs of its group at once. Default: 1."),
    per: oneOf(words.groupScope.all, "What the group counts together. Default: org.").optional(),
    priority: z
      .int()
      .min(-100)
      .max(100)
      .optional()
      .describe("Among runs that wait for their place, higher ones begin first. Default: 0."),
    rate: z
      .string()
      .optional()
      .describe('Its rate limit: a key and runs a minute, "anthropic=20", or the key alone. Default: none.'),
    agent_kind: z.string().optional().describe('The executor that is meant, for example "claude-code".'),
    overlap: oneOf(words.overlapPolicy.all, "A slot is due while a run is active. Default: skip.").optional(),
    catchup: oneOf(words.catchupPolicy.all, "Slots of a downtime. Default: collapse.").optional(),
    catchup_window: length("Slots older than this are missed, 1m to 30d. Default: 24h.").optional(),
    jitter: length("A stable delay up to this, 0s to 1h. Default: 0s.").optional(),
    min_cooldown: length(
      "No scheduled run sooner than this after the last, 0s to 30d. Default: 0s.",
    ).optional(),
    start_deadline: length("Skip a run that has not started by then, 1s to 30d. Default: never.").optional(),
    timeout: length("How long one attempt may take, 1s to 7d. Default: 1h.").optional(),
    max_attempts: z.int().min(1).max(20).optional().describe("Attempts per run, 1 to 20. Default: 1."),
    notification: oneOf(words.notification.all, "On the device's desktop. Default: none.").optional(),
    workspace: z
      .string()
      .regex(/^([a-z0-9][a-z0-9._-]*)?$/, "is no name of a workspace")
      .optional()
      .describe("The device's workspace to work in, by name. Default: the agent's, else the executor's own."),
    run_budget: z
      .string()
      .optional()
      .describe('What one run may use: tokens, a cost, or both: "50000, $0.50". Default: no bound.'),
    day_budget: z
      .string()
      .optional()
      .describe("What its runs of one day (UTC) may use; slots are skipped beyond it. Default: no bound."),
    continue_mode: oneOf(words.continueMode.all, "What a run begins with. Default: fresh.").optional(),
    questions: z
      .strictObject({
        timeout: length("How long an answer is waited for, 10s to 7d. Default: 10m.").optional(),
        default: oneOf(words.questionDefault.all, "Taken when nobody answers. Default: deny.").optional(),
        responders: oneOf(words.questionResponders.all, "Who may answer. Default: users.").optional(),
        wait_max: length("For how long in all a run's timeout stands still. Default: 1h.").optional(),
      })
      .optional()
      .describe("What becomes of the questions of its agent."),
    after: texts(
      "Slugs of watchers whose ends start this one, with { run, result } as its input.",
    ).optional(),
    after_condition: z
      .string()
      .optional()
      .describe(
        'Which ends do, in CEL: run.status == "completed" && result.structured.severity > 3. Default: completed ones.',
      ),
    redact: texts('Dotted paths of an input that are never shown: "commits.*.author".').optional(),
    notify: z
      .array(
        z.strictObject({
          to: id("The slug of a destination."),
          when: oneOf(words.notifyWhen.all, "What it is told."),
        }),
      )
      .max(20)
      .optional()
      .describe("Where its results and questions are told. Default: nowhere."),
    extraction_schema: z
      .union([z.record(z.string(), z.unknown()), z.string()])
      .optional()
      .describe("JSON schema of the result: a table, or a string of JSON. No variables are replaced in it."),
  })
  .describe("A standing instruction. What is absent has its default.");

const destination = z
  .strictObject({
    name: z.string().min(1, "must not be empty").optional().describe("Shown to people; default: the slug."),
    kind: z.enum(["webhook", "slack", "email", "platform"]).describe("What it is; it stays."),
    takes_alerts: z
      .boolean()
      .optional()
      .describe("Also what concerns the org: paused watchers, devices away, used-up budgets. Default: true."),
    url: z.string().optional().describe("webhook: where to."),
    signing_secret: z
      .string()
      .optional()
      .describe(
        'webhook: "whsec_…", as "$VARIABLE" or "secret://NAME". Default: one is made; `destinations rotate` shows another.',
      ),
    webhook_url: z.string().optional().describe("slack: the address of an incoming webhook, a secret."),
    bot_token: z.string().optional().describe("slack: the token of a bot, a secret; with channel."),
    channel: z.string().optional().describe("slack: where the bot writes."),
    api_url: z.string().optional().describe("slack: another address of its API."),
    platform: z.string().optional().describe("platform: the id of a platform of this org."),
    chat: z.string().optional().describe("platform: the chat there, as the platform names it."),
    to: texts("email: whom to. Default: the owners and admins of the org.").optional(),
    from: z.string().optional().describe("email: whom from; needed with smtp_url."),
    smtp_url: z.string().optional().describe("email: a mail server of its own, smtp://…, a secret."),
  })
  .describe("Where results are sent.");

const hook = z
  .strictObject({
    watcher: id("The slug of the watcher that its deliveries start."),
    kind: z.enum(hookKinds as [string, ...string[]]).describe("How its senders are verified; it stays."),
    filter: z
      .string()
      .optional()
      .describe(
        'Which deliveries start a run, in CEL over input, event and headers: event == "push". Default: every one.',
      ),
    mapping: z
      .string()
      .optional()
      .describe('The run\'s input, in CEL: {"sha": input.after}. Default: the whole body.'),
    rate_per_minute: z.int().min(1).max(6000).optional().describe("Deliveries a minute. Default: 60."),
    disabled: z.boolean().optional().describe("Answer its senders 404. Default: false."),
    secret: z
      .string()
      .optional()
      .describe(
        'Its secret, as "$VARIABLE" or "secret://NAME". Default: one is made; `hooks rotate` shows another.',
      ),
  })
  .describe("An address where something else starts a watcher.");

const device = z
  .strictObject({
    labels: z
      .array(z.string())
      .max(64)
      .describe("The labels that people give it, as a whole; what is absent is taken off."),
  })
  .describe("A device that has joined. What the file does not name stays as it is.");

const agent = z
  .strictObject({
    name: z.string().min(1, "must not be empty").optional().describe("Shown to people; default: the id."),
    device: z
      .string()
      .optional()
      .describe('The device that takes its turns, by label or id; "" leaves them to fleet workers.'),
    identity: z.string().optional().describe("The system prompt: who the agent is."),
    model: z.string().optional().describe("The model's name as its provider spells it."),
    mcp_servers: z
      .array(mcpServer)
      .optional()
      .describe("MCP servers that it may reach, besides Pinion's own."),
    installed_providers: texts("Providers whose keys are present.").optional(),
    egress_config: z
      .union([
        z.strictObject({
          allowed_hosts: texts('Host names or suffixes (".example.org"). Empty: no host at all.'),
        }),
        z.literal("unrestricted"),
      ])
      .optional()
      .describe('Where it may connect to: { allowed_hosts = ["…"] }, or "unrestricted".'),
    workspace: z
      .string()
      .regex(/^([a-z0-9][a-z0-9._-]*)?$/, "is no name of a workspace")
      .optional()
      .describe("The workspace of runs whose watcher names none."),
    pre_approved_tools: texts("Tools that need no confirmation.").optional(),
    guardrails: texts("Sentences that are always in force.").optional(),
    platforms: z.array(platform).optional().describe("Its chat platforms."),
    watchers: z.array(watcher).optional().describe("Its standing instructions."),
  })
  .describe("An agent. A setting that is absent is left as it is on the server.");

export const fileShape = z
  .strictObject({
    agents: z
      .record(z.string().regex(idPattern, { error: (issue) => explainId(issue.input) }), agent)
      .optional()
      .describe("Agents by id."),
    destinations: z
      .record(z.string().regex(idPattern, { error: (issue) => explainId(issue.input) }), destination)
      .optional()
      .describe("Destinations by slug, which watchers name in notify."),
    hooks: z
      .record(z.string().regex(idPattern, { error: (issue) => explainId(issue.input) }), hook)
      .optional()
      .describe("Hooks by slug: addresses where something else starts a watcher."),
    devices: z
      .record(z.string().min(1, "must not be empty"), device)
      .optional()
      .describe("Devices by label or id."),
  })
  .describe("What an org of Pinion shall have: pinion apply -f pinion.toml");

export type FileTree = z.output<typeof fileShape>;
export type HookTree = z.output<typeof hook>;
export type DestinationTree = z.output<typeof destination>;
export type AgentTree = z.output<typeof agent>;
export type WatcherTree = z.output<typeof watcher>;
export type PlatformTree = z.output<typeof platform>;

/** The JSON schema for editors. */
export function jsonSchema(): string {
  const schema = z.toJSONSchema(fileShape, { io: "input", target: "draft-7", reused: "inline" });
  return `${JSON.stringify({ title: "pinion.toml", ...schema }, null, 2)}\n`;
}

/** The shape of an item of each section. */
const ofSection: Record<string, { shape: object } | undefined> = {
  ...{ agents: agent, destinations: destination, hooks: hook, devices: device },
};

/** The valid keys of the table at a path, for "did you mean". */
export function knownKeys(path: readonly (string | number)[]): string[] {
  if (path.length === 0) return Object.keys(fileShape.shape);
  if (path.length === 2) return Object.keys(ofSection[String(path[0])]?.shape ?? {});
  const list = path[2];
  if (list === "platforms") return Object.keys(platform.shape);
  if (list === "watchers" && path[4] === "questions") return ["timeout", "default", "responders", "wait_max"];
  if (list === "watchers" && path[4] === "notify") return ["to", "when"];
  if (list === "watchers") return Object.keys(watcher.shape);
  if (list === "mcp_servers") return Object.keys(mcpServer.shape);
  return list === "egress_config" ? ["allowed_hosts"] : [];
}
