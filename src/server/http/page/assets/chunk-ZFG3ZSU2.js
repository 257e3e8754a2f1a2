import{Na as n}from"./chunk-ZLANTBH2.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
