import { Copyable } from "./copy.tsx";
import { closeDialog, Dialog } from "./dialog.tsx";

/** Shows a new token, the only time. `about`: what the token is for, before the advice. */
export function SecretDialog(props: { title: string; secret: string; about?: string }) {
  return (
    <Dialog title={props.title}>
      <p>{props.about && `${props.about} `}Copy it now: it is kept nowhere, and not shown again.</p>
      <Copyable label="the token" text={props.secret} />
      <footer>
        <button type="button" class="primary" onClick={closeDialog}>
          Done
        </button>
      </footer>
    </Dialog>
  );
}
