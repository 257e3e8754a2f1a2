import{b as F}from"./chunk-H4KXRW4X.js";import{k as w}from"./chunk-RUUCKMLJ.js";import{a as p,b as S,d as f,e as D,f as T}from"./chunk-FXXCACHE.js";import"./chunk-LMDDYHXK.js";import{a as C,b as E,c as M,d as A}from"./chunk-BIYUDCNG.js";import{a as L,e as U,p as h}from"./chunk-GCJZ5RRQ.js";import"./chunk-QHHO4PKU.js";import"./chunk-GQFN4RFD.js";import{c as z}from"./chunk-G7LOHOOT.js";import{A as i,B as P,Ea as g,Ha as W,Ja as x,Na as e,a as b,da as v,k as q,l as N,m as I,n as $,p as K,pa as _,va as d,wa as V,x as O}from"./chunk-TVHAHW6A.js";import"./chunk-IB3OMPMT.js";var B=I(btoa(`
pinion/v1/token.proto	pinion.v1"û
Token

id (	"
kind (2.pinion.v1.TokenKind\r
label (	
scopes (	
\x07user_id (	
	device_id (	.

created_at\x07 (\v2.google.protobuf.Timestamp.

expires_at\b (\v2.google.protobuf.Timestamp0
\flast_used_at	 (\v2.google.protobuf.Timestamp.

revoked_at
 (\v2.google.protobuf.Timestamp

creator_id\v (	
\fcreator_left\f (\b
\vall_devices\r (\b"Ã
CreateTokenRequest"
kind (2.pinion.v1.TokenKind\r
label (	
scopes (	-

expires_in (\v2.google.protobuf.Duration

request_id (	

device_ids (	
\vall_devices\x07 (\b"F
CreateTokenResponse
token (\v2.pinion.v1.Token
secret (	":
ListTokensRequest
	page_size (

page_token (	"q
ListTokensResponse 
tokens (\v2.pinion.v1.Token
next_page_token (	 
caller (\v2.pinion.v1.Token"&
RevokeTokenRequest
\btoken_id (	"6
RevokeTokenResponse
token (\v2.pinion.v1.Token"
RotateTokenRequest
\btoken_id (	*
\x07overlap (\v2.google.protobuf.Duration-

expires_in (\v2.google.protobuf.Duration"m
RotateTokenResponse
token (\v2.pinion.v1.Token
secret (	%
\vpredecessor (\v2.pinion.v1.Token*c
	TokenKind
TOKEN_KIND_UNSPECIFIED\0
TOKEN_KIND_PAT
TOKEN_KIND_DEV
TOKEN_KIND_SVC2È
\fTokenServiceL
\vCreateToken.pinion.v1.CreateTokenRequest.pinion.v1.CreateTokenResponseN

ListTokens.pinion.v1.ListTokensRequest.pinion.v1.ListTokensResponse"L
\vRevokeToken.pinion.v1.RevokeTokenRequest.pinion.v1.RevokeTokenResponseL
\vRotateToken.pinion.v1.RotateTokenRequest.pinion.v1.RotateTokenResponsebproto3`),[P,K,$]);var Q=q(B,0),c=N(Q),G=O(B,0);var H=2e3,R=W(G),X=[["destinations","Destinations"],["platforms","Platforms"],["hooks","Hooks"],["secrets","Secrets"],["you","Signed-in browsers"],["events","What happened"],["orgs","All orgs"]];function xe(){return e(b,{children:[e("h1",{class:"unseen",children:"Org"}),e("nav",{class:"org-links","aria-label":"Of the org",children:[e("b",{children:_.value?.orgName}),X.map(([n,u])=>(n!=="orgs"||V())&&e("a",{class:"button",href:z(n),children:u},n))]}),e(Y,{}),e(te,{})]})}function Y(){let n=C(()=>E(H,async o=>{let s=await g.listMembers({pageSize:200,pageToken:o});return{items:s.members,nextPageToken:s.nextPageToken}}),[],({kind:o})=>o.startsWith("member.")),u=n.value.value;return e("section",{class:"sheet","aria-label":"Members",children:[e("h2",{children:["Members",d("admin")&&e("button",{type:"button",class:"end",onClick:()=>p(e(j,{done:n.again})),children:"Add a member"})]}),u?e(M,{label:"Members",items:u,keyOf:({userId:o})=>o,columns:[{title:"Name",cell:o=>o.name||e("span",{class:"muted",children:"–"})},{title:"Email",cell:o=>o.email},{title:"Role",cell:o=>w(o.role)},{title:"Since",cell:o=>e(h,{at:o.createdAt})},{title:"",class:"end",cell:o=>d("admin")?e(ee,{member:o,done:n.again}):null}]}):e(A,{error:n.error.value,again:n.again})]})}var Z=[v.OWNER,v.ADMIN,v.MEMBER];function ee({member:n,done:u}){let o=n.name||n.email;return e(b,{children:[n.email!==""&&e("button",{type:"button",class:"quiet","aria-label":`Change the role of ${o}`,onClick:()=>p(e(j,{member:n,done:u})),children:"Role"}),e("button",{type:"button",class:"quiet warn","aria-label":`Remove ${o}`,onClick:()=>T({title:`Remove ${o}?`,text:"Their tokens, sign-ins and devices’ tokens end, their devices’ streams are closed, and what is pinned to them is unpinned.",action:"Remove the member",async act(){let s=await g.removeMember({userId:n.userId});return u(),`${o} is removed: ${s.tokensRevoked} tokens ended, ${s.watchersUnpinned} watchers unpinned.`}}),children:"Remove"})]})}function j({member:n,done:u}){let o=i(n?.email??""),s=i(n?.name??""),t=i(n?.role??v.MEMBER),r=i(""),k=async l=>{l.preventDefault();try{await g.addMember({email:o.value.trim(),name:s.value.trim(),role:t.value}),S(),u()}catch(a){r.value=x(a)}};return e(f,{title:n?`The role of ${n.name||n.email}`:"Add a member",class:"narrow",children:e("form",{onSubmit:k,children:[!n&&e(b,{children:[e("label",{class:"field",children:[e("span",{children:"Email"}),e("input",{type:"email",required:!0,value:o.value,onInput:l=>{o.value=l.currentTarget.value}})]}),e("label",{class:"field",children:[e("span",{children:"Name"}),e("input",{value:s.value,onInput:l=>{s.value=l.currentTarget.value}})]})]}),e("label",{class:"field",children:[e("span",{children:"Role"}),e("select",{value:String(t.value),onChange:l=>{t.value=Number(l.currentTarget.value)},children:Z.map(l=>e("option",{value:l,children:w(l)},l))})]}),e(D,{action:n?"Save":"Add",error:r.value})]})})}var ne={[c.PAT]:"person",[c.DEV]:"device",[c.SVC]:"service"};function te(){let n=i(!1),u=C(()=>E(H,async t=>{let r=await R.listTokens({pageSize:500,pageToken:t});return{items:r.tokens,nextPageToken:r.nextPageToken}}),[],({kind:t})=>t.startsWith("token.")),s=u.value.value?.filter(t=>n.value||!t.revokedAt&&t.kind!==c.DEV);return e("section",{class:"sheet","aria-label":"Tokens",children:[e("h2",{children:["Tokens",e("label",{class:"small-check",children:[e("input",{type:"checkbox",checked:n.value,onChange:t=>{n.value=t.currentTarget.checked}}),"also devices’ and revoked ones"]}),d("write")&&e("button",{type:"button",class:"end",onClick:()=>p(e(ae,{done:u.again})),children:"Create a token"})]}),s?e(M,{label:"Tokens",items:s,keyOf:({id:t})=>t,columns:[{title:"Label",cell:t=>e("b",{children:t.label})},{title:"Of a",cell:t=>ne[t.kind]??""},{title:"May",cell:t=>`${t.scopes.join(", ")}${t.allDevices?", every device":""}`},{title:"Last used",cell:t=>t.lastUsedAt?e(h,{at:t.lastUsedAt}):e("span",{class:"muted",children:"never"})},{title:"Expires",cell:t=>t.revokedAt?e("span",{class:"muted",children:"revoked"}):t.expiresAt?e(h,{at:t.expiresAt}):e("span",{class:"muted",children:"never"})},{title:"",class:"end",cell:t=>d("write")&&!t.revokedAt?e(oe,{token:t,done:u.again}):null}]}):e(A,{error:u.error.value,again:u.again})]})}function oe({token:n,done:u}){return e(b,{children:[e("button",{type:"button",class:"quiet","aria-label":`Rotate ${n.label}`,onClick:()=>T({title:`Rotate ${n.label}?`,text:"A successor that may do the same is made and shown once; the old one stays good for ten minutes.",action:"Rotate it",async act(){let{secret:o}=await R.rotateToken({tokenId:n.id});u(),p(e(J,{secret:o,label:n.label}))}}),children:"Rotate"}),e("button",{type:"button",class:"quiet warn","aria-label":`Revoke ${n.label}`,onClick:()=>T({title:`Revoke ${n.label}?`,text:"What uses it is refused from now on, and what it holds open ends.",action:"Revoke it",async act(){return await R.revokeToken({tokenId:n.id}),u(),`${n.label} is revoked.`}}),children:"Revoke"})]})}function J({secret:n,label:u}){return e(f,{title:`The token ${u}`,children:[e("p",{children:"Copy it now: it is kept nowhere, and not shown again."}),e(F,{label:"the token",text:n}),e("footer",{children:e("button",{type:"button",class:"primary",onClick:S,children:"Done"})})]})}var ue=[{days:7,label:"7 days"},{days:30,label:"30 days"},{days:90,label:"90 days"},{days:365,label:"a year"},{days:0,label:"for ever"}];function ae({done:n}){let u=["read","write","admin","fleet:run"].filter(a=>_.value?.scopes.includes(a)||a==="fleet:run"&&d("admin")),o=i(""),s=i(c.SVC),t=i(new Set(["read"])),r=i(d("admin")?90:7),k=i("");return e(f,{title:"Create a token",class:"narrow",children:e("form",{onSubmit:async a=>{a.preventDefault();try{let{secret:m}=await R.createToken({kind:s.value,label:o.value.trim(),scopes:[...t.value],...r.value>0?{expiresIn:L(r.value*U)}:{}});n(),p(e(J,{secret:m,label:o.value.trim()}))}catch(m){k.value=x(m)}},children:[e("label",{class:"field",children:[e("span",{children:"Label"}),e("input",{required:!0,maxLength:100,value:o.value,onInput:a=>{o.value=a.currentTarget.value}})]}),e("label",{class:"field",children:[e("span",{children:"Of"}),e("select",{value:String(s.value),onChange:a=>{s.value=Number(a.currentTarget.value)},children:[e("option",{value:c.SVC,children:"a service"}),e("option",{value:c.PAT,children:"you"})]})]}),e("label",{class:"field",children:[e("span",{children:"Good for"}),e("select",{value:String(r.value),onChange:a=>{r.value=Number(a.currentTarget.value)},children:ue.map(a=>e("option",{value:a.days,children:a.label},a.days))})]}),e("fieldset",{class:"checks",children:[e("legend",{children:"It may"}),u.map(a=>e("label",{children:[e("input",{type:"checkbox",checked:t.value.has(a),onChange:m=>{let y=new Set(t.value);m.currentTarget.checked?y.add(a):y.delete(a),t.value=y}}),e("b",{children:a})]},a))]}),e(D,{action:"Create it",error:k.value,isDisabled:t.value.size===0})]})})}export{xe as OrgView};
