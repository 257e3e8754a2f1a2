/** Hooks: addresses where other programs start watchers, and their deliveries, with replay. */
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { type Hook, type HookDelivery, HookKind, HookOutcome } from "#gen/pinion/v1/hook_pb.js";
import { may } from "../data/api.ts";
import { hooks as api } from "../data/hooks.ts";
import { useReading } from "../data/reading.ts";
import { Copy } from "../parts/copy.tsx";
import { DataTree } from "../parts/data-tree.tsx";
import { Empty } from "../parts/empty.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo } from "../route.ts";

const listed = 200;
const concerns = ({ kind }: { kind: string }) => kind.startsWith("hook.") || kind === "run.created";

const hookKindWord = (kind: HookKind) => (HookKind[kind] ?? "").toLowerCase().replaceAll("_", " ");

const outcomes: Record<number, [word: string, tone: string]> = {
  [HookOutcome.STARTED]: ["started", "good"],
  [HookOutcome.ALREADY_QUEUED]: ["already there", "quiet"],
  [HookOutcome.QUEUED]: ["waits", "wait"],
  [HookOutcome.SKIPPED]: ["skipped", "quiet"],
  [HookOutcome.FILTERED]: ["filtered", "quiet"],
  [HookOutcome.FAILED]: ["failed", "bad"],
};

export function HooksView({ id }: { id: string }) {
  return id ? <OneHook key={id} id={id} /> : <AllHooks />;
}

function AllHooks() {
  const reading = useReading((signal) => api.listHooks({ pageSize: listed }, { signal }), [], concerns);
  const found = reading.value.value?.hooks;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (found.length === 0) {
    return (
      <Empty title="No hook yet">
        <p>
          A hook is an address where another program starts a watcher, with what it posts as the input.{" "}
          <code>pinion hooks create</code> makes one, or <code>[hooks.…]</code> in the file of{" "}
          <code>pinion apply</code>.
        </p>
      </Empty>
    );
  }
  return (
    <section class="sheet" aria-label="Hooks">
      <h1>Hooks</h1>
      <HookTable hooks={found} />
    </section>
  );
}

/** Hooks with their state; on a watcher's page without the watcher. */
export function HookTable({ hooks, isOfWatcher = false }: { hooks: readonly Hook[]; isOfWatcher?: boolean }) {
  return (
    <Table
      label="Hooks"
      items={hooks}
      keyOf={({ id }) => id}
      columns={[
        { title: "Hook", cell: ({ slug }) => <a href={linkTo("hooks", slug)}>{slug}</a> },
        ...(isOfWatcher
          ? []
          : [
              {
                title: "Starts",
                cell: ({ spec }: Hook) => <a href={linkTo("watchers", spec?.watcherId)}>{spec?.watcherId}</a>,
              },
            ]),
        { title: "Senders", cell: ({ spec }) => hookKindWord(spec?.kind ?? HookKind.UNSPECIFIED) },
        {
          title: "Last delivery",
          cell: ({ lastDeliveryAt }) =>
            lastDeliveryAt ? <Ago at={lastDeliveryAt} /> : <span class="muted">never</span>,
        },
        {
          title: "Turned away",
          class: "wide-cell",
          cell: ({ lastRefusedAt, lastRefusedReason, spec }) =>
            spec?.isDisabled ? (
              <span class="muted">disabled: senders are answered 404</span>
            ) : lastRefusedAt ? (
              <span class="bad-text">
                <Ago at={lastRefusedAt} />: {lastRefusedReason}
              </span>
            ) : null,
        },
      ]}
    />
  );
}

function OneHook({ id }: { id: string }) {
  const reading = useReading(
    async (signal) => {
      const [{ hook }, { deliveries }] = await Promise.all([
        api.getHook({ hookId: id }, { signal }),
        api.listHookDeliveries({ hookId: id }, { signal }),
      ]);
      return { hook: hook!, deliveries };
    },
    [id],
    concerns,
  );
  const found = reading.value.value;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  const { hook, deliveries } = found;
  return (
    <article class="page">
      <header class="head">
        <div>
          <a class="back" href={linkTo("hooks")}>
            Hooks
          </a>
          <h1>{hook.slug}</h1>
          <p class="muted">
            <code>{hook.url}</code> <Copy text={hook.url} what="the address" />
          </p>
        </div>
      </header>
      <AboutHook hook={hook} />
      <Deliveries hook={hook} deliveries={deliveries} again={reading.again} />
    </article>
  );
}

function AboutHook({ hook }: { hook: Hook }) {
  const { spec } = hook;
  return (
    <section class="sheet" aria-label="About the hook">
      <dl>
        <Fact name="starts">
          <a href={linkTo("watchers", spec?.watcherId)}>{spec?.watcherId}</a>
        </Fact>
        <Fact name="senders">{hookKindWord(spec?.kind ?? HookKind.UNSPECIFIED)}</Fact>
        {spec?.filter && (
          <Fact name="filter">
            <code>{spec.filter}</code>
          </Fact>
        )}
        {spec?.mapping && (
          <Fact name="mapping">
            <code>{spec.mapping}</code>
          </Fact>
        )}
        <Fact name="a minute">{spec?.ratePerMinute}</Fact>
        {spec?.isDisabled && <Fact name="disabled">senders are answered 404</Fact>}
        {hook.lastRefusedAt && (
          <Fact name="turned away">
            <Ago at={hook.lastRefusedAt} />: {hook.lastRefusedReason}
          </Fact>
        )}
      </dl>
    </section>
  );
}

function Deliveries(props: { hook: Hook; deliveries: HookDelivery[]; again: () => void }) {
  const { hook, deliveries } = props;
  const shown = useSignal("");
  return (
    <section class="sheet" aria-label="Deliveries">
      <h2>
        Deliveries <small>the newest 100 at most</small>
      </h2>
      {deliveries.length === 0 ? (
        <p class="muted">None yet. Deliveries whose sender was not verified are not kept.</p>
      ) : (
        <Table
          label="Deliveries"
          items={deliveries}
          keyOf={(one) => one.id}
          columns={[
            { title: "Outcome", cell: (one) => <Outcome delivery={one} /> },
            { title: "Event", cell: ({ event }) => <code>{event}</code> },
            { title: "Came", cell: ({ receivedAt }) => <Ago at={receivedAt} /> },
            {
              title: "Run",
              cell: ({ runId }) => (runId ? <a href={linkTo("runs", runId)}>{runId.slice(-8)}</a> : null),
            },
            {
              title: "Again",
              class: "number",
              cell: ({ duplicates }) => duplicates || "",
            },
            { title: "Why", class: "wide-cell", cell: ({ reason }) => reason },
            {
              title: "",
              class: "end",
              cell: (one) => (
                <>
                  <button
                    type="button"
                    class="quiet"
                    aria-pressed={shown.value === one.id}
                    onClick={() => {
                      shown.value = shown.value === one.id ? "" : one.id;
                    }}
                  >
                    Body
                  </button>
                  {may("write") && <Replay hookId={hook.id} delivery={one} done={props.again} />}
                </>
              ),
            },
          ]}
        />
      )}
      {shown.value !== "" && <Body key={shown.value} hookId={hook.id} id={shown.value} />}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Outcome({ delivery }: { delivery: HookDelivery }) {
  const [word, tone] = outcomes[delivery.outcome] ?? ["unknown", "quiet"];
  return (
    <span class={`status ${tone}`}>
      <i aria-hidden="true" />
      {word}
      {delivery.replayOf && " (replay)"}
    </span>
  );
}

function Replay({ hookId, delivery, done }: { hookId: string; delivery: HookDelivery; done: () => void }) {
  return (
    <button
      type="button"
      class="quiet"
      aria-label={`Replay the delivery ${delivery.id.slice(-8)}`}
      onClick={() =>
        attempt(async () => {
          const { delivery: made } = await api.replayHookDelivery({ hookId, id: delivery.id });
          done();
          const [word] = outcomes[made!.outcome] ?? ["unknown"];
          return `Taken in again: ${word}${made!.reason ? `, ${made!.reason}` : ""}.`;
        })
      }
    >
      Replay
    </button>
  );
}

function Body({ hookId, id }: { hookId: string; id: string }) {
  const reading = useReading((signal) => api.getHookDelivery({ hookId, id }, { signal }), [id]);
  const delivery = reading.value.value?.delivery;
  if (!delivery) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (!delivery.body) {
    return (
      <p class="muted">
        {delivery.bodyHidden
          ? "Its device’s owner has not let you read what runs are given there."
          : "The body is kept no longer."}
      </p>
    );
  }
  return <DataTree value={toJson(ValueSchema, delivery.body)} name="Body" />;
}
