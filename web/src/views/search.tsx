/** Search over names, ids and words of results. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { RunHit } from "#gen/pinion/v1/run_pb.js";
import { runs } from "../data/api.ts";
import { devices, labelOf } from "../data/devices.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { withoutMarkup } from "../data/windows.ts";
import { Empty } from "../parts/empty.tsx";
import { FilterBox } from "../parts/filter.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { livenessWord, runWord, watcherWord } from "../words.ts";

const askAfterMs = 350;
const namedMax = 12;
const charactersMin = 2;

export function SearchView() {
  const typed = route.value.query.get("q") ?? "";
  const text = typed.trim();
  const reading = useHits(text);
  const found = reading.value.value;
  return (
    <>
      <div class="tools">
        <h1 class="unseen">Search</h1>
        <FilterBox value={typed} hint="A name, an id, words of a result" onInput={(q) => setQuery({ q })} />
        {found && (
          <span class="muted">
            looked through the newest {found.resultsSearched.toLocaleString("en")} results
          </span>
        )}
      </div>
      {text.length < charactersMin ? (
        <Empty title="Look for anything">
          <p>
            Watchers and devices by name, runs by the beginning or end of their id, results by their words:
            “build failed” finds both words, "quoted words" as they stand, and -word without it.
          </p>
        </Empty>
      ) : (
        <Found words={text.toLowerCase().split(/\s+/).filter(Boolean)} reading={reading} />
      )}
    </>
  );
}

/** The runs of a text, read when the text has not changed for a moment. */
function useHits(text: string) {
  const asked = useSignal(text);
  useEffect(() => {
    const timer = setTimeout(() => {
      asked.value = text;
    }, askAfterMs);
    return () => clearTimeout(timer);
  }, [text]);
  const query = asked.value;
  return useReading(
    async (signal) => (query.length < charactersMin ? undefined : runs.searchRuns({ query }, { signal })),
    [query],
  );
}

function Found({ words, reading }: { words: readonly string[]; reading: ReturnType<typeof useHits> }) {
  const has = (of: string) => words.length > 0 && words.every((word) => of.toLowerCase().includes(word));
  const namedWatchers = watchers.items.value
    .filter(({ slug, id, spec }) => has(`${slug} ${id} ${spec?.name} ${spec?.prompt}`))
    .slice(0, namedMax);
  const namedDevices = devices.items.value
    .filter(({ label, id, hostName }) => has(`${label} ${id} ${hostName}`))
    .slice(0, namedMax);
  const hits = reading.value.value?.hits;
  return (
    <>
      <Named
        title="Watchers"
        items={namedWatchers.map(({ id, slug, spec, status }) => ({
          ...{ id, name: spec?.name || slug, link: linkTo("watchers", slug), word: watcherWord(status) },
        }))}
      />
      <Named
        title="Devices"
        items={namedDevices.map(({ id, liveness }) => ({
          ...{ id, name: labelOf(id), link: linkTo("fleet", id), word: livenessWord(liveness) },
        }))}
      />
      {hits === undefined ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : (
        hits.length > 0 && <Hits hits={hits} words={words} />
      )}
      {namedWatchers.length + namedDevices.length === 0 && hits?.length === 0 && (
        <Empty title="Nothing was found" />
      )}
    </>
  );
}

/** Watchers or devices whose names match. */
function Named(props: {
  title: string;
  items: readonly { id: string; name: string; link: string; word: string }[];
}) {
  if (props.items.length === 0) return null;
  return (
    <section class="sheet" aria-label={props.title}>
      <h2>{props.title}</h2>
      <ul class="versions">
        {props.items.map(({ id, name, link, word }) => (
          <li key={id}>
            <a href={link}>{name}</a>
            <Status word={word} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Hits({ hits, words }: { hits: readonly RunHit[]; words: readonly string[] }) {
  return (
    <section class="sheet" aria-label="Runs">
      <h2>Runs</h2>
      <ul class="needs">
        {hits.map(({ run, excerpt }) =>
          run ? (
            <li key={run.id}>
              <Status word={runWord(run.status)} />
              <span>
                <a href={linkTo("runs", run.id)}>
                  <b>{run.watcherSlug || run.id}</b>
                </a>{" "}
                <code>{run.id.slice(-8)}</code>{" "}
                <small>
                  <Ago at={run.finishedAt ?? run.dueAt} />
                </small>
                {excerpt && <Excerpt text={withoutMarkup(excerpt)} words={words} />}
              </span>
            </li>
          ) : null,
        )}
      </ul>
    </section>
  );
}

/** A piece of a result with the searched words marked. */
function Excerpt({ text, words }: { text: string; words: readonly string[] }) {
  const wanted = words.map((word) => word.replace(/[^\p{L}\p{N}]/gu, "")).filter(Boolean);
  const pieces = wanted.length > 0 ? text.split(new RegExp(`(${wanted.join("|")})`, "giu")) : [text];
  return (
    <div class="muted">
      {pieces.map((piece, index) => (index % 2 === 1 ? <mark key={index}>{piece}</mark> : piece))}
    </div>
  );
}
