import { durationFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { explainError, fleet } from "../data/api.ts";
import { listen } from "../data/live.ts";
import { Copyable } from "../parts/copy.tsx";
import { closeDialog, Dialog, DialogEnd } from "../parts/dialog.tsx";
import { ChoiceField } from "../parts/fields.tsx";
import { Ago } from "../parts/time.tsx";
import { dayMs, hourMs, minuteMs } from "../times.ts";

/** In milliseconds. */
const lengths = [
  { value: 15 * minuteMs, label: "15 minutes" },
  { value: hourMs, label: "1 hour" },
  { value: dayMs, label: "1 day" },
  { value: 7 * dayMs, label: "7 days" },
];

/** Creates a join code for one daemon, shows the command to paste, and reports the enrolment. */
export function JoinDialog() {
  const lengthMs = useSignal(15 * minuteMs);
  const made = useSignal<{ code: string; expiresAt: Timestamp | undefined } | undefined>(undefined);
  const error = useSignal("");
  const enrolled = useSignal("");

  useEffect(
    () =>
      listen({
        onEvent(event) {
          if (event.kind !== "device.enrolled" || !made.value) return;
          const label = event.data?.label;
          enrolled.value = typeof label === "string" && label ? label : event.deviceId;
        },
        onGap() {},
      }),
    [],
  );

  const make = async () => {
    error.value = "";
    try {
      const answer = await fleet.createJoinCode({ expiresIn: durationFromMs(lengthMs.value) });
      made.value = { code: answer.joinCode, expiresAt: answer.expiresAt };
    } catch (failure) {
      error.value = explainError(failure);
    }
  };

  return (
    <Dialog title="Add a device">
      {made.value ? (
        <Steps code={made.value.code} expiresAt={made.value.expiresAt} enrolled={enrolled.value} />
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void make();
          }}
        >
          <p>A join code lets one machine enrol as yours, once. It is shown here and nowhere else.</p>
          <ChoiceField label="Good for" value={lengthMs} options={lengths} />
          <DialogEnd action="Make a join code" error={error.value} />
        </form>
      )}
    </Dialog>
  );
}

/** The commands to paste, and the sign that a device has enrolled. */
function Steps(props: { code: string; expiresAt: Timestamp | undefined; enrolled: string }) {
  const { code, expiresAt, enrolled } = props;
  return (
    <>
      <p>
        On the machine that is to become a device. The code is good once, for one machine, and expires{" "}
        <Ago at={expiresAt} />.
      </p>
      <h3>Install, enrol and start it</h3>
      <Copyable
        label="the line that installs it"
        text={`curl -fsS ${location.origin}/install.sh | sh -s -- ${code}`}
      />
      <h3>Or enrol it, where Pinion is installed</h3>
      <Copyable
        label="the command"
        text={`pinion device enroll --url ${location.origin} --join-code ${code}`}
      />
      <h3>Start its daemon</h3>
      <Copyable label="the command of the daemon" text="pinion device run" />
      <h3>The code alone</h3>
      <Copyable label="the code" text={code} />
      <p class={enrolled ? "enrolled" : "hint"} role="status">
        {enrolled ? `✓ ${enrolled} has enrolled.` : "Waiting for a device to enrol…"}
      </p>
      <footer>
        <button type="button" class="primary" onClick={closeDialog}>
          Done
        </button>
      </footer>
    </>
  );
}
