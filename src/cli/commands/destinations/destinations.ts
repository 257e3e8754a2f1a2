import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  CreateDestinationResponseSchema,
  DeliverySchema,
  DeliveryState,
  type Destination,
  DestinationSchema,
  DestinationSpecSchema,
  ListDestinationsResponseSchema,
  ReplayDeliveriesResponseSchema,
  RotateDestinationSecretResponseSchema,
} from "#gen/pinion/v1/destination_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, details, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo, parseLength } from "../../print/times.ts";
import { addDeliveries } from "./deliveries.ts";
import { type SpecOptions, specOf } from "./destination-spec.ts";

/** `pinion destinations …`: receivers of results. */
export function addDestinations(program: Command, cli: Cli): void {
  const destinations = program.command("destinations").description("where results of watchers are sent");
  addList(destinations, cli);
  addGet(destinations, cli);
  addCreate(destinations, cli);
  addUpdate(destinations, cli);
  addDelete(destinations, cli);
  addRotate(destinations, cli);
  addTest(destinations, cli);
  addDeliveries(destinations, cli);
  addReplay(destinations, cli);
}

function addList(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("list")
    .alias("ls")
    .description("list the destinations, by slug, never their secrets")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListDestinationsResponseSchema,
        field: "destinations",
        read: (request) => clients.destinations.listDestinations(request),
        none: "no destinations; `pinion destinations create --help` shows how to make one",
        columns,
      });
    });
  examples(command, [["destinations list", "all of them, with what waits and what was given up"]]);
}

const columns: Column<Destination>[] = [
  { header: "DESTINATION", cell: ({ slug }) => slug },
  { header: "KIND", cell: ({ spec }) => spec?.kind.case ?? "" },
  { header: "ALERTS", cell: ({ spec }) => (spec?.takesAlerts ? "yes" : "no") },
  { header: "WAIT", cell: ({ pendingDeliveries }) => String(pendingDeliveries), align: "right" },
  { header: "DEAD", cell: ({ deadDeliveries }) => String(deadDeliveries), align: "right" },
  { header: "LAST", cell: ({ lastDeliveredAt }) => formatAgo(lastDeliveredAt) },
  { header: "WHERE", cell: (destination) => plain(whereOf(destination)), isFlexible: true },
  { header: "ERROR", cell: ({ lastError }) => plain(lastError), isFlexible: true },
];

function whereOf({ spec }: Destination): string {
  switch (spec?.kind.case) {
    case "webhook":
      return spec.kind.value.url;
    case "slack":
      return spec.kind.value.channel || "an incoming webhook";
    case "platform":
      return `${spec.kind.value.platformId}, chat ${spec.kind.value.chat}`;
    case "email":
      return spec.kind.value.to.join(", ") || "owners and admins";
    default:
      return "";
  }
}

function addGet(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("get")
    .argument("<destination>", "its slug or id")
    .description("show a destination")
    .action(async (destinationId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const destination = told(
        (await clients.destinations.getDestination({ destinationId })).destination,
        "destination",
      );
      if (options.json) return printJson(cli, DestinationSchema, destination);
      print(cli, destination);
    });
  examples(command, [["destinations get ops", ""]]);
}

function print(cli: Cli, destination: Destination): void {
  const { spec } = destination;
  const lines = details(
    [
      ["destination", destination.slug],
      ["id", destination.id],
      ["name", plain(spec?.name ?? "")],
      ["kind", spec?.kind.case ?? ""],
      ["where", plain(whereOf(destination))],
      ["alerts", spec?.takesAlerts ? "yes" : "no"],
      ["waiting", String(destination.pendingDeliveries)],
      ["given up", String(destination.deadDeliveries)],
      ["last taken", formatMomentAgo(destination.lastDeliveredAt)],
      ["last error", plain(destination.lastError)],
      ["version", String(destination.version)],
      ["created", formatMomentAgo(destination.createdAt)],
      ["edited", formatMomentAgo(destination.updatedAt)],
    ],
    cli.colors.dim,
  );
  for (const line of lines) cli.out(line);
}

function withSpecOptions(command: Command): Command {
  return (
    command
      .option("--name <text>", "shown to people")
      .option("--webhook <url>", "an HTTP receiver by the Standard Webhooks convention")
      // Secrets on a command line would be visible in the shell's history and the process list.
      .option("--secret-env <VARIABLE>", "its signing secret, from this variable (a new one is made)")
      .option(
        "--slack-webhook-env <VARIABLE>",
        "an incoming webhook of Slack, its address from this variable",
      )
      .option("--slack-bot-env <VARIABLE>", "a bot of Slack, its token from this variable; with --channel")
      .option("--channel <channel>", "where the bot writes, by id or name")
      .option("--slack-api <url>", "another address of Slack's API")
      .option(
        "--email <addresses>",
        'mail to these, by commas; "admins" for the owners and admins of the org',
      )
      .option("--smtp-env <VARIABLE>", "a mail server of its own, smtp://… from this variable; with --from")
      .option("--from <address>", "whom mail is from")
      .option("--platform <platform>", "a chat of one of the org's platforms; with --chat")
      .option("--chat <chat>", "the chat there, as the platform names it")
      .option("--alerts", "take paused watchers, devices that are away, and used-up budgets (the default)")
      .option("--no-alerts", "take only what watchers send here")
  );
}

function addCreate(destinations: Command, cli: Cli): void {
  const command = withSpecOptions(
    destinations
      .command("create")
      .argument("<destination>", 'its slug: a-z, 0-9 and "-"')
      .description("make a destination; a webhook's signing secret is shown once"),
  )
    .option("--dry-run", "check it, and change nothing")
    .action(async (slug: string, _options, command: Command) => {
      const { clients, options } = connect<SpecOptions & { dryRun?: boolean }>(cli, command);
      const spec = specOf(cli, options, create(DestinationSpecSchema, { name: slug }));
      if (spec.kind.case === undefined) {
        throw new Failure(
          exitCodes.usage,
          "what kind of destination?",
          "one of --webhook, --slack-webhook-env, --slack-bot-env, --email, --platform",
        );
      }
      const dryRun = options.dryRun ?? false;
      const answer = await clients.destinations.createDestination({ slug, spec, dryRun });
      if (options.json) return printJson(cli, CreateDestinationResponseSchema, answer);
      if (dryRun) return cli.out(`${slug}: would be created`);
      cli.out(`${slug}: created`);
      showSecret(cli, answer.signingSecret);
    });
  examples(command, [
    ["destinations create ops --webhook https://example.org/pinion", "shows its signing secret"],
    ["destinations create team --slack-webhook-env SLACK_URL", ""],
    ["destinations create chat --platform team-chat --chat -1001234567890", "a group of Telegram"],
    ["destinations create mail --email admins", "needs PINION_SMTP_URL on the server"],
  ]);
}

function showSecret(cli: Cli, secret: string): void {
  if (secret === "") return;
  cli.note("its signing secret, which is shown once:");
  cli.program(`${secret}\n`);
}

function addUpdate(destinations: Command, cli: Cli): void {
  const command = withSpecOptions(
    destinations
      .command("update")
      .argument("<destination>", "its slug or id")
      .description("change what the options name; the rest stays"),
  ).action(async (destinationId: string, _options, command: Command) => {
    const { clients, options } = connect<SpecOptions>(cli, command);
    const before = told(
      (await clients.destinations.getDestination({ destinationId })).destination,
      "destination",
    );
    const spec = specOf(cli, options, told(before.spec, "spec"));
    const destination = told(
      (
        await clients.destinations.updateDestination({
          ...{ destinationId, spec, expectedVersion: before.version },
        })
      ).destination,
      "destination",
    );
    if (options.json) return printJson(cli, DestinationSchema, destination);
    const isSame = destination.version === before.version;
    cli.out(`${destination.slug}: ${isSame ? "nothing to change" : `version ${destination.version}`}`);
  });
  examples(command, [["destinations update ops --webhook https://example.org/new", ""]]);
}

function addDelete(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("delete")
    .argument("<destination>", "its slug or id")
    .description("remove a destination that no watcher notifies, with its deliveries")
    .action(async (destinationId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await clients.destinations.deleteDestination({ destinationId });
      if (options.json) return cli.out(JSON.stringify({ deleted: destinationId }));
      cli.out(`${destinationId} is deleted`);
    });
  examples(command, [["destinations delete ops", ""]]);
}

function addRotate(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("rotate")
    .argument("<destination>", "its slug or id")
    .description("a new signing secret for a webhook, shown once")
    .option("--overlap <length>", "how long the old one signs too, 0s to 7d", "24h")
    .action(async (destinationId: string, _options, command: Command) => {
      const { clients, options } = connect<{ overlap: string }>(cli, command);
      const overlap = durationFromMs(parseLength(options.overlap, "--overlap"));
      const answer = await clients.destinations.rotateDestinationSecret({ destinationId, overlap });
      if (options.json) return printJson(cli, RotateDestinationSecretResponseSchema, answer);
      showSecret(cli, answer.signingSecret);
    });
  examples(command, [["destinations rotate ops --overlap 2h", ""]]);
}

function addTest(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("test")
    .argument("<destination>", "its slug or id")
    .description("send a test message, and say what became of it")
    .action(async (destinationId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const delivery = told(
        (await clients.destinations.testDestination({ destinationId })).delivery,
        "delivery",
      );
      if (options.json) printJson(cli, DeliverySchema, delivery);
      const isTaken = delivery.state === DeliveryState.DELIVERED;
      if (!isTaken) {
        const why = plain(delivery.lastError) || "nothing was heard of it in time";
        throw new Failure(exitCodes.failed, `the test did not arrive: ${why}`);
      }
      if (!options.json) cli.out(`${destinationId} took it`);
    });
  examples(command, [["destinations test ops", ""]]);
}

function addReplay(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("replay")
    .argument(
      "<destination-or-deliveries...>",
      "a destination, whose dead deliveries go again, or ids of deliveries",
    )
    .description("send deliveries again that are over, under the ids that they had")
    .option("--deliveries", "the arguments are ids of deliveries")
    .action(async (names: string[], _options, command: Command) => {
      const { clients, options } = connect<{ deliveries?: boolean }>(cli, command);
      const [destinationId = "", ...others] = names;
      if (!options.deliveries && others.length > 0) {
        throw new Failure(exitCodes.usage, "name one destination", "with --deliveries, any number of ids");
      }
      const request = options.deliveries ? { deliveryIds: names } : { destinationId };
      const answer = await clients.destinations.replayDeliveries(request);
      if (options.json) return printJson(cli, ReplayDeliveriesResponseSchema, answer);
      cli.out(answer.replayed === 1 ? "1 is sent again" : `${answer.replayed} are sent again`);
    });
  examples(command, [
    ["destinations replay ops", "all that were given up"],
    ["destinations replay --deliveries 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", ""],
  ]);
}
