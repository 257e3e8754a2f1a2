/** Dialogs that start runs of a watcher: one now, or those of past days. */
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { timestampFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { closeDialog, Dialog, DialogEnd } from "../parts/dialog.tsx";
import { NumberField } from "../parts/fields.tsx";
import { attempt } from "../parts/toasts.tsx";
import { goTo } from "../route.ts";
import { dayMs } from "../times.ts";

export function TriggerDialog({ watcher }: { watcher: Watcher }) {
  const text = useSignal("");
  const error = useSignal("");
  const usesInput = /\{\{\s*input\b/.test(watcher.spec?.prompt ?? "");
  const start = async (event: Event) => {
    event.preventDefault();
    let input: unknown;
    if (text.value.trim() !== "") {
      try {
        input = JSON.parse(text.value);
      } catch {
        // Text other than JSON is sent as a string.
        input = text.value;
      }
    }
    closeDialog();
    await attempt(async () => {
      const { run, alreadyQueued } = await api.triggerWatcher({
        watcherId: watcher.id,
        ...(input === undefined ? {} : { input: fromJson(ValueSchema, input as JsonValue) }),
      });
      if (run) goTo("runs", run.id);
      return alreadyQueued
        ? `${watcher.slug} has an active run already: this one.`
        : `${watcher.slug} was triggered.`;
    });
  };
  return (
    <Dialog title={`Trigger ${watcher.spec?.name || watcher.slug}`} class="narrow">
      <form onSubmit={start}>
        <p>One run, now. The schedule stays as it is.</p>
        <label class="field">
          <span>Input, as JSON or text{usesInput ? "" : " (the prompt does not refer to any)"}</span>
          <textarea
            rows={4}
            class="mono"
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
        </label>
        <DialogEnd action="Start it" error={error.value} />
      </form>
    </Dialog>
  );
}

export function BackfillDialog({ watcher }: { watcher: Watcher }) {
  const days = useSignal(1);
  const act = async (event: Event) => {
    event.preventDefault();
    closeDialog();
    await attempt(async () => {
      const end = now.value;
      const { slotsAccepted, slotsPresent } = await api.backfillWatcher({
        watcherId: watcher.id,
        start: timestampFromMs(end - days.value * dayMs),
        end: timestampFromMs(end),
      });
      return `${slotsAccepted} slots will run, one after another; ${slotsPresent} had run already.`;
    });
  };
  return (
    <Dialog title={`Backfill ${watcher.slug}`} class="narrow">
      <form onSubmit={act}>
        <p>Runs the slots of past days that have no run: after a pause, or before the watcher was there.</p>
        <NumberField label="Days back from now" value={days} min={1} max={366} />
        <DialogEnd action="Backfill" />
      </form>
    </Dialog>
  );
}
