import type { Command } from "commander";
import { type Delivery, DeliveryState, ListDeliveriesResponseSchema } from "#gen/pinion/v1/destination_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { runId } from "../../lookup.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";
import * as words from "../../print/words.ts";

type Options = { destination?: string; state?: string; run?: string; limit: number };

/** `pinion destinations deliveries`: deliveries and their outcomes. */
export function addDeliveries(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("deliveries")
    .argument("[destination]", "only those to this one (slug or id)")
    .description("list deliveries, newest first")
    .option("--state <state>", `only those that are ${words.deliveryState.all.join(", ")}`)
    .option("--run <run>", "only those about this run")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (destinationId: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<Options>(cli, command);
      const filter = {
        destinationId: destinationId ?? "",
        state: options.state
          ? words.deliveryState.value(options.state, "--state")
          : DeliveryState.UNSPECIFIED,
        runId: options.run ? await runId(clients, options.run) : "",
      };
      await printList(cli, options, {
        schema: ListDeliveriesResponseSchema,
        field: "deliveries",
        read: (request) => clients.destinations.listDeliveries({ ...filter, ...request }),
        none: "no deliveries",
        columns: columnsOf(cli),
      });
    });
  examples(command, [
    ["destinations deliveries ops", "the last 20"],
    ["destinations deliveries --state dead", "what was given up, wherever it was for"],
  ]);
}

const columnsOf = (cli: Cli): Column<Delivery>[] => [
  { header: "DELIVERY", cell: ({ id }) => id },
  { header: "TO", cell: ({ destinationSlug }) => destinationSlug },
  { header: "TELLS", cell: ({ kind }) => plain(kind) },
  { header: "WATCHER", cell: ({ watcherSlug }) => watcherSlug },
  { header: "WHEN", cell: ({ when }) => words.notifyWhen.word(when) },
  { header: "STATE", cell: ({ state }) => words.paintState(cli, words.deliveryState.word(state)) },
  { header: "TRIES", cell: ({ attempts }) => String(attempts), align: "right" },
  { header: "AGE", cell: ({ createdAt }) => formatAgo(createdAt) },
  { header: "NEXT", cell: ({ nextAttemptAt }) => formatAgo(nextAttemptAt) },
  { header: "ERROR", cell: ({ lastError }) => plain(lastError), isFlexible: true },
];
