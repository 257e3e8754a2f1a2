import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { Dialog, openDialog } from "../parts/dialog.tsx";
import { programText, workspaceModeWord } from "../words.ts";

/**
 * A device's offers to watchers: the number of executors, and on a press the list with problems.
 */
export function Offers({ device, isActive }: { device: Device; isActive: boolean }) {
  const { executors, workspaces } = device;
  if (executors.length === 0) return null;
  const isTroubled = [...executors, ...workspaces].some(({ problem }) => problem !== "");
  const count = executors.length === 1 ? "1 executor" : `${executors.length} executors`;
  return (
    <button
      type="button"
      class={`quiet offers ${isTroubled ? "warn" : ""}`}
      tabIndex={isActive ? 0 : -1}
      aria-label={`Offers of ${device.label}: ${count}`}
      title="Its executors and workspaces"
      onClick={() => openDialog(<OffersDialog device={device} />)}
    >
      Offers
    </button>
  );
}

function OffersDialog({ device }: { device: Device }) {
  return (
    <Dialog title={`What ${device.label} offers`}>
      <h3>Executors</h3>
      <dl class="offers">
        {device.executors.map(({ kind, type, version, problem, egressProblem }) => (
          <div key={kind}>
            <dt>
              <code>{kind}</code>
            </dt>
            <dd>
              {programText({ type, version })}
              {problem && <p class="error">{problem}</p>}
              {egressProblem && <p class="muted">{egressProblem}</p>}
            </dd>
          </div>
        ))}
      </dl>
      <h3>Workspaces</h3>
      {device.workspaces.length === 0 && <p class="muted">None; docs/executors.md says how to add one.</p>}
      <dl class="offers">
        {device.workspaces.map(({ name, mode, problem }) => (
          <div key={name}>
            <dt>
              <code>{name}</code>
            </dt>
            <dd>
              {workspaceModeWord(mode)}
              {problem && <p class="error">{problem}</p>}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
