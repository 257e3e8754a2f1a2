import{a as C}from"./chunk-QSAKY7Y5.js";import{a as U}from"./chunk-5JLG5N7T.js";import{c as K}from"./chunk-K5B6FKPC.js";import{a as p,c as v,d}from"./chunk-FVRG3YFL.js";import{p as c}from"./chunk-P6FPAYFH.js";import{a as T}from"./chunk-JT5P2HZT.js";import{c as a}from"./chunk-FNIAJ5M6.js";import{A as w,B as I,Ha as x,Na as e,a as b,k as H,l as m,m as _,n as y,p as R,r as D,s as g,t as O,u as S,va as q,x as E}from"./chunk-Z5JTJ2A6.js";var h=_(btoa(`
pinion/v1/hook.proto	pinion.v1"
\bHookSpec

watcher_id (	!
kind (2.pinion.v1.HookKind
filter (	
\x07mapping (	
rate_per_minute (
\vis_disabled (\b"
Hook

id (	\f
slug (	!
spec (\v2.pinion.v1.HookSpec\v
url (	
\x07version (.

created_at (\v2.google.protobuf.Timestamp.

updated_at\x07 (\v2.google.protobuf.Timestamp4
old_secret_until\b (\v2.google.protobuf.Timestamp4
last_delivery_at	 (\v2.google.protobuf.Timestamp3
last_refused_at
 (\v2.google.protobuf.Timestamp\x1B
last_refused_reason\v (	
secret_reference\f (	"¦
\fHookDelivery

id (	
\x07hook_id (	
\vdelivery_id (	/
\vreceived_at (\v2.google.protobuf.Timestamp\r
event (	'
\x07outcome (2.pinion.v1.HookOutcome
run_id\x07 (	
reason\b (	

duplicates	 (
	replay_of
 (	

body_bytes\v ($
body\f (\v2.google.protobuf.Value5
\x07headers\r (\v2$.pinion.v1.HookDelivery.HeadersEntry
\vbody_hidden (\b.
\fHeadersEntry\v
key (	\r
value (	:8"y
CreateHookRequest\f
slug (	!
spec (\v2.pinion.v1.HookSpec
secret (	

request_id (	
\x07dry_run (\b"P
CreateHookResponse
hook (\v2.pinion.v1.Hook
secret (	\v
url (	"!
GetHookRequest
\x07hook_id (	"0
GetHookResponse
hook (\v2.pinion.v1.Hook"M
ListHooksRequest
	page_size (

page_token (	

watcher_id (	"L
ListHooksResponse
hooks (\v2.pinion.v1.Hook
next_page_token (	"³
UpdateHookRequest
\x07hook_id (	!
spec (\v2.pinion.v1.HookSpec/
\vupdate_mask (\v2.google.protobuf.FieldMask
expected_version (
\x07dry_run (\b
secret (	"3
UpdateHookResponse
hook (\v2.pinion.v1.Hook"$
DeleteHookRequest
\x07hook_id (	"
DeleteHookResponse"f
RotateHookSecretRequest
\x07hook_id (	
secret (	*
\x07overlap (\v2.google.protobuf.Duration"V
RotateHookSecretResponse
hook (\v2.pinion.v1.Hook
secret (	\v
url (	",
ListHookDeliveriesRequest
\x07hook_id (	"I
ListHookDeliveriesResponse+

deliveries (\v2.pinion.v1.HookDelivery"5
GetHookDeliveryRequest
\x07hook_id (	

id (	"D
GetHookDeliveryResponse)
\bdelivery (\v2.pinion.v1.HookDelivery"L
ReplayHookDeliveryRequest
\x07hook_id (	

id (	

request_id (	"G
ReplayHookDeliveryResponse)
\bdelivery (\v2.pinion.v1.HookDelivery*®
\bHookKind
HOOK_KIND_UNSPECIFIED\0
HOOK_KIND_STANDARD
HOOK_KIND_GITHUB
HOOK_KIND_GITLAB
HOOK_KIND_SLACK
HOOK_KIND_BEARER
HOOK_KIND_SECRET_URL*Í
\vHookOutcome
HOOK_OUTCOME_UNSPECIFIED\0
HOOK_OUTCOME_STARTED
\x1BHOOK_OUTCOME_ALREADY_QUEUED
HOOK_OUTCOME_QUEUED
HOOK_OUTCOME_SKIPPED
HOOK_OUTCOME_FILTERED
HOOK_OUTCOME_FAILED2
\vHookServiceI

CreateHook.pinion.v1.CreateHookRequest.pinion.v1.CreateHookResponseE
\x07GetHook.pinion.v1.GetHookRequest.pinion.v1.GetHookResponse"K
	ListHooks\x1B.pinion.v1.ListHooksRequest.pinion.v1.ListHooksResponse"I

UpdateHook.pinion.v1.UpdateHookRequest.pinion.v1.UpdateHookResponseI

DeleteHook.pinion.v1.DeleteHookRequest.pinion.v1.DeleteHookResponse[
RotateHookSecret".pinion.v1.RotateHookSecretRequest#.pinion.v1.RotateHookSecretResponsef
ListHookDeliveries$.pinion.v1.ListHookDeliveriesRequest%.pinion.v1.ListHookDeliveriesResponse"]
GetHookDelivery!.pinion.v1.GetHookDeliveryRequest".pinion.v1.GetHookDeliveryResponse"a
ReplayHookDelivery$.pinion.v1.ReplayHookDeliveryRequest%.pinion.v1.ReplayHookDeliveryResponsebproto3`),[I,R,D,g,y]);var M=H(h,0),k=m(M),$=H(h,1),s=m($),L=E(h,0);var l=x(L);var B=200,A=({kind:u})=>u.startsWith("hook.")||u==="run.created",F=u=>(k[u]??"").toLowerCase().replaceAll("_"," "),G={[s.STARTED]:["started","good"],[s.ALREADY_QUEUED]:["already there","quiet"],[s.QUEUED]:["waits","wait"],[s.SKIPPED]:["skipped","quiet"],[s.FILTERED]:["filtered","quiet"],[s.FAILED]:["failed","bad"]};function y0({id:u}){return u?e(W,{id:u},u):e(Q,{})}function Q(){let u=p(t=>l.listHooks({pageSize:B},{signal:t}),[],A),o=u.value.value?.hooks;return o?o.length===0?e(T,{title:"No hook yet",children:e("p",{children:["A hook is an address where another program starts a watcher, with what it posts as the input."," ",e("code",{children:"pinion hooks create"})," makes one, or ",e("code",{children:"[hooks.…]"})," in the file of"," ",e("code",{children:"pinion apply"}),"."]})}):e("section",{class:"sheet","aria-label":"Hooks",children:[e("h1",{children:"Hooks"}),e(V,{hooks:o})]}):e(d,{error:u.error.value,again:u.again})}function V({hooks:u,isOfWatcher:o=!1}){return e(v,{label:"Hooks",items:u,keyOf:({id:t})=>t,columns:[{title:"Hook",cell:({slug:t})=>e("a",{href:a("hooks",t),children:t})},...o?[]:[{title:"Starts",cell:({spec:t})=>e("a",{href:a("watchers",t?.watcherId),children:t?.watcherId})}],{title:"Senders",cell:({spec:t})=>F(t?.kind??k.UNSPECIFIED)},{title:"Last delivery",cell:({lastDeliveryAt:t})=>t?e(c,{at:t}):e("span",{class:"muted",children:"never"})},{title:"Turned away",class:"wide-cell",cell:({lastRefusedAt:t,lastRefusedReason:i,spec:n})=>n?.isDisabled?e("span",{class:"muted",children:"disabled: senders are answered 404"}):t?e("span",{class:"bad-text",children:[e(c,{at:t}),": ",i]}):null}]})}function W({id:u}){let o=p(async f=>{let[{hook:N},{deliveries:P}]=await Promise.all([l.getHook({hookId:u},{signal:f}),l.listHookDeliveries({hookId:u},{signal:f})]);return{hook:N,deliveries:P}},[u],A),t=o.value.value;if(!t)return e(d,{error:o.error.value,again:o.again});let{hook:i,deliveries:n}=t;return e("article",{class:"page",children:[e("header",{class:"head",children:e("div",{children:[e("a",{class:"back",href:a("hooks"),children:"Hooks"}),e("h1",{children:i.slug}),e("p",{class:"muted",children:[e("code",{children:i.url})," ",e(U,{text:i.url,what:"the address"})]})]})}),e(z,{hook:i}),e(Y,{hook:i,deliveries:n,again:o.again})]})}function z({hook:u}){let{spec:o}=u;return e("section",{class:"sheet","aria-label":"About the hook",children:e("dl",{children:[e(r,{name:"starts",children:e("a",{href:a("watchers",o?.watcherId),children:o?.watcherId})}),e(r,{name:"senders",children:F(o?.kind??k.UNSPECIFIED)}),o?.filter&&e(r,{name:"filter",children:e("code",{children:o.filter})}),o?.mapping&&e(r,{name:"mapping",children:e("code",{children:o.mapping})}),e(r,{name:"a minute",children:o?.ratePerMinute}),o?.isDisabled&&e(r,{name:"disabled",children:"senders are answered 404"}),u.lastRefusedAt&&e(r,{name:"turned away",children:[e(c,{at:u.lastRefusedAt}),": ",u.lastRefusedReason]})]})})}function Y(u){let{hook:o,deliveries:t}=u,i=w("");return e("section",{class:"sheet","aria-label":"Deliveries",children:[e("h2",{children:["Deliveries ",e("small",{children:"the newest 100 at most"})]}),t.length===0?e("p",{class:"muted",children:"None yet. Deliveries whose sender was not verified are not kept."}):e(v,{label:"Deliveries",items:t,keyOf:n=>n.id,columns:[{title:"Outcome",cell:n=>e(J,{delivery:n})},{title:"Event",cell:({event:n})=>e("code",{children:n})},{title:"Came",cell:({receivedAt:n})=>e(c,{at:n})},{title:"Run",cell:({runId:n})=>n?e("a",{href:a("runs",n),children:n.slice(-8)}):null},{title:"Again",class:"number",cell:({duplicates:n})=>n||""},{title:"Why",class:"wide-cell",cell:({reason:n})=>n},{title:"",class:"end",cell:n=>e(b,{children:[e("button",{type:"button",class:"quiet","aria-pressed":i.value===n.id,onClick:()=>{i.value=i.value===n.id?"":n.id},children:"Body"}),q("write")&&e(X,{hookId:o.id,delivery:n,done:u.again})]})}]}),i.value!==""&&e(Z,{hookId:o.id,id:i.value},i.value)]})}function r({name:u,children:o}){return e("div",{children:[e("dt",{children:u}),e("dd",{children:o})]})}function J({delivery:u}){let[o,t]=G[u.outcome]??["unknown","quiet"];return e("span",{class:`status ${t}`,children:[e("i",{"aria-hidden":"true"}),o,u.replayOf&&" (replay)"]})}function X({hookId:u,delivery:o,done:t}){return e("button",{type:"button",class:"quiet","aria-label":`Replay the delivery ${o.id.slice(-8)}`,onClick:()=>K(async()=>{let{delivery:i}=await l.replayHookDelivery({hookId:u,id:o.id});t();let[n]=G[i.outcome]??["unknown"];return`Taken in again: ${n}${i.reason?`, ${i.reason}`:""}.`}),children:"Replay"})}function Z({hookId:u,id:o}){let t=p(n=>l.getHookDelivery({hookId:u,id:o},{signal:n}),[o]),i=t.value.value?.delivery;return i?i.body?e(C,{value:S(O,i.body),name:"Body"}):e("p",{class:"muted",children:i.bodyHidden?"Its device’s owner has not let you read what runs are given there.":"The body is kept no longer."}):e(d,{error:t.error.value,again:t.again})}export{l as a,y0 as b,V as c};
