/** Destinations of results, and the state of each message, including failed messages. */
import { type Delivery, DeliveryState, type Destination } from "#gen/pinion/v1/destination_pb.js";
import { destinations as api, may } from "../data/api.ts";
import { useReading } from "../data/reading.ts";
import { confirm } from "../parts/dialog.tsx";
import { Empty } from "../parts/empty.tsx";
import { type Column, ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo, route, setQuery } from "../route.ts";

const listed = 200;
const deliveriesShown = 50;

const states = [
  { name: "", label: "all", state: DeliveryState.UNSPECIFIED },
  { name: "waiting", label: "waiting", state: DeliveryState.PENDING },
  { name: "dead", label: "given up", state: DeliveryState.DEAD },
  { name: "delivered", label: "delivered", state: DeliveryState.DELIVERED },
];
const words: Record<number, [word: string, tone: string]> = {
  [DeliveryState.PENDING]: ["waiting", "wait"],
  [DeliveryState.DELIVERED]: ["delivered", "good"],
  [DeliveryState.DEAD]: ["given up", "bad"],
};

const concerns = ({ kind }: { kind: string }) =>
  kind.startsWith("destination.") || kind.startsWith("delivery.");

export function DestinationsView() {
  const reading = useReading(
    (signal) => api.listDestinations({ pageSize: listed }, { signal }),
    [],
    concerns,
  );
  const found = reading.value.value?.destinations;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (found.length === 0) {
    return (
      <Empty title="No destination yet">
        <p>
          A destination takes what runs find: a webhook, a channel of Slack, mail.{" "}
          <code>pinion destinations create</code> makes one, and a watcher’s <code>notify</code> names it.
        </p>
      </Empty>
    );
  }
  return (
    <>
      <section class="sheet" aria-label="Destinations">
        <h1>Destinations</h1>
        <Table label="Destinations" items={found} keyOf={({ id }) => id} columns={columnsOf(reading.again)} />
      </section>
      <Deliveries all={found} done={reading.again} />
    </>
  );
}

const columnsOf = (done: () => void): Column<Destination>[] => [
  { title: "Destination", cell: (one) => <b>{one.spec?.name || one.slug}</b> },
  { title: "Kind", cell: (one) => one.spec?.kind.case ?? "" },
  {
    title: "Waiting",
    class: "number",
    cell: (one) => <Filtered count={one.pendingDeliveries} of={one} state="waiting" />,
  },
  {
    title: "Given up",
    class: "number",
    cell: (one) => <Filtered count={one.deadDeliveries} of={one} state="dead" />,
  },
  {
    title: "Last taken",
    cell: (one) =>
      one.lastDeliveredAt ? <Ago at={one.lastDeliveredAt} /> : <span class="muted">never</span>,
  },
  {
    title: "Last error",
    class: "wide-cell",
    cell: (one) => <span class="bad-text">{one.lastError}</span>,
  },
  {
    title: "",
    class: "end",
    cell: (one) => (may("write") ? <Actions destination={one} done={done} /> : null),
  },
];

function Filtered({ count, of, state }: { count: number; of: Destination; state: string }) {
  if (count === 0) return <span class="muted">0</span>;
  return (
    <a href={linkTo("destinations", "", { to: of.slug, state })}>
      {count >= 1_000 ? "1,000 or more" : count}
    </a>
  );
}

function Actions({ destination, done }: { destination: Destination; done: () => void }) {
  const { slug } = destination;
  return (
    <>
      <button
        type="button"
        class="quiet"
        aria-label={`Send ${slug} a test`}
        onClick={() =>
          attempt(async () => {
            const { delivery } = await api.testDestination({ destinationId: slug });
            done();
            if (delivery?.state === DeliveryState.DELIVERED) return `${slug} took the test message.`;
            throw new Error(`${slug} did not take it: ${delivery?.lastError || "no answer yet"}`);
          })
        }
      >
        Test
      </button>
      {destination.deadDeliveries > 0 && (
        <button
          type="button"
          class="quiet"
          aria-label={`Send again what was given up for ${slug}`}
          onClick={() =>
            confirm({
              title: `Send ${destination.deadDeliveries} again?`,
              text: `What was given up for ${slug} is tried anew, each under the id that it had.`,
              action: "Send them again",
              async act() {
                const { replayed } = await api.replayDeliveries({ destinationId: slug });
                done();
                return `${replayed} are tried again.`;
              },
            })
          }
        >
          Send again
        </button>
      )}
    </>
  );
}

function Deliveries({ all, done }: { all: readonly Destination[]; done: () => void }) {
  const { query } = route.value;
  const [to, name] = [query.get("to") ?? "", query.get("state") ?? ""];
  const chosen = states.find((one) => one.name === name) ?? states[0]!;
  const reading = useReading(
    (signal) =>
      api.listDeliveries({ destinationId: to, state: chosen.state, pageSize: deliveriesShown }, { signal }),
    // `all` changes after a test or a repeated message, so the messages are read again.
    [to, chosen.name, all],
    concerns,
  );
  const found = reading.value.value?.deliveries;
  return (
    <section class="sheet" aria-label="Messages">
      <h2>
        Messages
        <span class="end chips" role="group" aria-label="State">
          {states.map((one) => (
            <button
              key={one.name}
              type="button"
              aria-pressed={one === chosen}
              onClick={() => setQuery({ state: one.name })}
            >
              {one.label}
            </button>
          ))}
        </span>
      </h2>
      {to !== "" && (
        <p class="muted">
          To {all.find(({ slug }) => slug === to)?.spec?.name || to}.{" "}
          <button type="button" class="quiet" onClick={() => setQuery({ to: "" })}>
            To all
          </button>
        </p>
      )}
      {!found ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : found.length === 0 ? (
        <p class="muted">None.</p>
      ) : (
        <Table
          label="Messages"
          items={found}
          keyOf={({ id }) => id}
          columns={deliveryColumns(() => {
            reading.again();
            done();
          })}
        />
      )}
    </section>
  );
}

/** `done` is called after a message was sent again. */
const deliveryColumns = (done: () => void): Column<Delivery>[] => [
  { title: "State", cell: (one) => <State delivery={one} /> },
  { title: "Tells", cell: ({ kind }) => <code>{kind}</code> },
  {
    title: "About",
    cell: ({ runId, watcherSlug }) =>
      runId === "" ? watcherSlug : <a href={linkTo("runs", runId)}>{watcherSlug || runId.slice(-8)}</a>,
  },
  { title: "To", cell: ({ destinationSlug }) => destinationSlug },
  { title: "Tries", class: "number", cell: ({ attempts }) => attempts },
  { title: "When", cell: ({ createdAt }) => <Ago at={createdAt} /> },
  {
    title: "Why",
    class: "wide-cell",
    cell: ({ lastError }) => <span title={lastError}>{lastError}</span>,
  },
  {
    title: "",
    class: "end",
    cell: (one) =>
      may("write") && one.state === DeliveryState.DEAD ? (
        <button
          type="button"
          class="quiet"
          onClick={() =>
            attempt(async () => {
              await api.replayDeliveries({ deliveryIds: [one.id] });
              done();
              return "It is tried again.";
            })
          }
        >
          Send again
        </button>
      ) : null,
  },
];

function State({ delivery }: { delivery: Delivery }) {
  const [word, tone] = words[delivery.state] ?? ["unknown", "quiet"];
  return (
    <span class={`status ${tone}`}>
      <i aria-hidden="true" />
      {word}
    </span>
  );
}
