import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  type CreateHookResponse,
  CreateHookResponseSchema,
  type HookDelivery,
  HookDeliverySchema,
  HookKind,
  HookOutcome,
  HookSchema,
  HookSpecSchema,
  ListHookDeliveriesResponseSchema,
  ListHooksResponseSchema,
  RotateHookSecretResponseSchema,
} from "#gen/pinion/v1/hook_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { asJson, printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { details, plain, plainLines, table } from "../../print/table.ts";
import { formatAgo, formatMomentAgo, parseLength } from "../../print/times.ts";

const wordOf = (names: Record<number, string>, value: number) =>
  (names[value] ?? "").toLowerCase().replaceAll("_", "-");

const kindWords = Object.values(HookKind).flatMap((value) =>
  typeof value === "number" && value !== 0 ? [wordOf(HookKind, value)] : [],
);

function kindOf(word: string): HookKind {
  const kind = HookKind[word.toUpperCase().replaceAll("-", "_") as keyof typeof HookKind];
  if (kind) return kind;
  throw new Failure(exitCodes.usage, `--kind: is one of ${kindWords.join(", ")}`);
}

/** `pinion hooks …`: external events as triggers of watchers. */
export function addHooks(program: Command, cli: Cli): void {
  const hooks = program.command("hooks").description("addresses at which something else starts a watcher");
  addList(hooks, cli);
  addGet(hooks, cli);
  addCreate(hooks, cli);
  addUpdate(hooks, cli);
  addRotate(hooks, cli);
  addDelete(hooks, cli);
  addDeliveries(hooks, cli);
  addInspect(hooks, cli);
  addReplay(hooks, cli);
}

function addList(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("list")
    .alias("ls")
    .description("list the hooks, by slug, never their secrets")
    .option("--watcher <watcher>", "only those of this watcher (id or slug)", "")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ watcher: string; limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListHooksResponseSchema,
        field: "hooks",
        read: (request) => clients.hooks.listHooks({ ...request, watcherId: options.watcher }),
        none: "no hooks; `pinion hooks create --help` shows how to make one",
        columns: [
          { header: "HOOK", cell: (hook) => hook.slug },
          { header: "WATCHER", cell: (hook) => hook.spec?.watcherId ?? "" },
          {
            header: "KIND",
            cell: (hook) => wordOf(HookKind, hook.spec?.kind ?? 0),
          },
          { header: "LAST", cell: (hook) => formatAgo(hook.lastDeliveryAt) },
          { header: "URL", cell: (hook) => plain(hook.url) },
        ],
      });
    });
  examples(command, [["hooks list", "all of them"]]);
}

function addGet(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("get")
    .argument("<hook>", "id or slug")
    .description("one hook, without its secret")
    .action(async (hookId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const hook = told((await clients.hooks.getHook({ hookId })).hook, "hook");
      if (options.json) return printJson(cli, HookSchema, hook);
      const spec = told(hook.spec, "spec");
      const lines = details(
        [
          ["hook", hook.slug],
          ["id", hook.id],
          ["url", plain(hook.url)],
          ["watcher", plain(spec.watcherId)],
          ["kind", wordOf(HookKind, spec.kind)],
          ["filter", plain(spec.filter)],
          ["mapping", plain(spec.mapping)],
          ["secret", plain(hook.secretReference)],
          ["a minute", String(spec.ratePerMinute)],
          ["disabled", spec.isDisabled ? "yes" : ""],
          ["last delivery", formatMomentAgo(hook.lastDeliveryAt)],
          [
            "turned away",
            [formatMomentAgo(hook.lastRefusedAt), plain(hook.lastRefusedReason)].join(" ").trim(),
          ],
          ["old secret", hook.oldSecretUntil ? `good until ${formatMomentAgo(hook.oldSecretUntil)}` : ""],
        ],
        cli.colors.dim,
      );
      for (const line of lines) cli.out(line);
    });
  examples(command, [["hooks get review-github", ""]]);
}

type Decided = { watcher?: string; filter?: string; mapping?: string; rate?: number; disabled?: boolean };

function specOptions(command: Command): Command {
  return command
    .option("--filter <cel>", 'which deliveries start a run: event == "push"; "" for all')
    .option("--mapping <cel>", 'the run\'s input: {"sha": input.after}; "" for the whole body')
    .option("--rate <n>", "deliveries a minute", wholeNumber(1, 6_000));
}

function specOf(options: Decided) {
  const { watcher, filter, mapping, rate, disabled } = options;
  const set = { watcher_id: watcher, filter, mapping, rate_per_minute: rate, is_disabled: disabled };
  const paths = Object.entries(set).flatMap(([path, value]) => (value === undefined ? [] : [path]));
  const spec = create(HookSpecSchema, {
    ...(watcher === undefined ? {} : { watcherId: watcher }),
    ...(filter === undefined ? {} : { filter }),
    ...(mapping === undefined ? {} : { mapping }),
    ...(rate === undefined ? {} : { ratePerMinute: rate }),
    ...(disabled === undefined ? {} : { isDisabled: disabled }),
  });
  return { spec, paths };
}

function addCreate(hooks: Command, cli: Cli): void {
  const command = specOptions(
    hooks
      .command("create")
      .argument("<watcher>", "the watcher that it starts, by id or slug")
      .description("make a hook; its secret is shown once")
      .requiredOption("--kind <kind>", `how senders are verified: ${kindWords.join(", ")}`)
      .option("--slug <slug>", "its name in commands; default: made from the watcher and the kind", "")
      .option(
        "--secret-env <variable>",
        "the variable that holds the secret, where the sender has one already",
      ),
  ).action(async (watcher: string, _options, command: Command) => {
    const { clients, options } = connect<Decided & { kind: string; slug: string; secretEnv?: string }>(
      cli,
      command,
    );
    const { spec } = specOf({ ...options, watcher });
    spec.kind = kindOf(options.kind);
    const secret = secretFrom(cli, options);
    const answer = await clients.hooks.createHook({ spec, slug: options.slug, secret });
    if (options.json) return printJson(cli, CreateHookResponseSchema, answer);
    cli.out(plain(answer.url));
    cli.note(`hook ${told(answer.hook, "hook").slug}; ${secretNote(answer)}`);
  });
  examples(command, [
    [
      `hooks create review --kind github --filter 'event == "push"'`,
      "prints the address, and the secret beside it",
    ],
  ]);
}

/**
 * The secret from the environment, so that it stands in no history of commands; empty: one is made.
 */
function secretFrom(cli: Cli, { secretEnv }: { secretEnv?: string }): string {
  if (secretEnv === undefined) return "";
  const secret = cli.env[secretEnv] ?? "";
  if (secret === "") throw new Failure(exitCodes.usage, `--secret-env: ${secretEnv} is not set`);
  return secret;
}

/** The secret, or the name of the server's secret, which is not shown. */
function secretNote({ secret, hook }: Pick<CreateHookResponse, "secret" | "hook">): string {
  if (secret === "") return `its secret is ${hook?.secretReference}, of the server`;
  return `its secret, shown only now: ${secret}`;
}

function addUpdate(hooks: Command, cli: Cli): void {
  const command = specOptions(
    hooks.command("update").argument("<hook>", "id or slug").description("change a hook"),
  )
    .option("--watcher <watcher>", "the watcher that it starts, by id or slug")
    .option("--disabled", "senders are answered 404")
    .option("--no-disabled", "senders are taken in again")
    .action(async (hookId: string, _options, command: Command) => {
      const { clients, options } = connect<Decided>(cli, command);
      const { spec, paths } = specOf(options);
      if (paths.length === 0)
        throw new Failure(exitCodes.usage, "nothing to change; see pinion hooks update --help");
      const hook = told(
        (await clients.hooks.updateHook({ hookId, spec, updateMask: { paths } })).hook,
        "hook",
      );
      if (options.json) return printJson(cli, HookSchema, hook);
      cli.out(`${hook.slug} is at version ${hook.version}`);
    });
  examples(command, [[`hooks update review-github --filter 'input.ref == "refs/heads/main"'`, ""]]);
}

function addRotate(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("rotate")
    .argument("<hook>", "id or slug")
    .description("a new secret, shown once; the one before stays good for the overlap")
    .option("--overlap <length>", "how long, 0s to 30d", "24h")
    .option("--secret-env <variable>", "the variable that holds the new secret; default: one is made")
    .action(async (hookId: string, _options, command: Command) => {
      const { clients, options } = connect<{ overlap: string; secretEnv?: string }>(cli, command);
      const overlap = durationFromMs(parseLength(options.overlap, "--overlap"));
      const secret = secretFrom(cli, options);
      const answer = await clients.hooks.rotateHookSecret({ hookId, overlap, secret });
      if (options.json) return printJson(cli, RotateHookSecretResponseSchema, answer);
      cli.out(plain(answer.url));
      cli.note(secretNote(answer));
    });
  examples(command, [["hooks rotate review-github --overlap 1h", ""]]);
}

function addDelete(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("delete")
    .argument("<hook>", "id or slug")
    .description("remove a hook and its deliveries; its address answers 404")
    .action(async (hookId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await clients.hooks.deleteHook({ hookId });
      if (options.json) return cli.out(JSON.stringify({ hook_id: hookId, deleted: true }));
      cli.out(`${plain(hookId)} is removed`);
    });
  examples(command, [["hooks delete review-github", ""]]);
}

function addDeliveries(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("deliveries")
    .argument("<hook>", "id or slug")
    .description("its last 100 deliveries, newest first")
    .action(async (hookId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.hooks.listHookDeliveries({ hookId });
      if (options.json) return printJson(cli, ListHookDeliveriesResponseSchema, answer);
      const columns = [
        { header: "DELIVERY", cell: (one: HookDelivery) => one.id },
        { header: "CAME", cell: (one: HookDelivery) => formatAgo(one.receivedAt) },
        { header: "EVENT", cell: (one: HookDelivery) => plain(one.event) },
        { header: "OUTCOME", cell: (one: HookDelivery) => wordOf(HookOutcome, one.outcome) },
        { header: "", cell: (one: HookDelivery) => plain(one.reason || one.runId), isFlexible: true },
      ];
      for (const line of table(answer.deliveries, columns, cli.columns)) cli.out(line);
    });
  examples(command, [["hooks deliveries review-github", ""]]);
}

function addInspect(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("inspect")
    .argument("<hook>", "id or slug")
    .argument("<delivery>", "the delivery's id")
    .description("one delivery with its body, and what became of it")
    .action(async (hookId: string, id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const delivery = told((await clients.hooks.getHookDelivery({ hookId, id })).delivery, "delivery");
      if (options.json) return printJson(cli, HookDeliverySchema, delivery);
      cli.out(plainLines(JSON.stringify(asJson(HookDeliverySchema, delivery), null, 2)));
    });
  examples(command, [["hooks inspect review-github 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", ""]]);
}

function addReplay(hooks: Command, cli: Cli): void {
  const command = hooks
    .command("replay")
    .argument("<hook>", "id or slug")
    .argument("<delivery>", "the delivery's id")
    .description("take a delivery in again, through the filter and the mapping as they are now")
    .action(async (hookId: string, id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const delivery = told((await clients.hooks.replayHookDelivery({ hookId, id })).delivery, "delivery");
      if (options.json) return printJson(cli, HookDeliverySchema, delivery);
      cli.out(`${wordOf(HookOutcome, delivery.outcome)} ${plain(delivery.runId || delivery.reason)}`);
    });
  examples(command, [["hooks replay review-github 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", ""]]);
}
