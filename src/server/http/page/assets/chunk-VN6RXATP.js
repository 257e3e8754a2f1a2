<<<<<<<< HEAD:src/server/http/page/assets/chunk-INAYFHXV.js
import{Ia as r,c as o,s as t}from"./chunk-3VCAYUYQ.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-JWMTUPBY.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
========
import{Ga as r,c as o,s as t}from"./chunk-B4IWXYAO.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-VN6RXATP.js
