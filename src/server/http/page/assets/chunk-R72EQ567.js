import{Ca as n}from"./chunk-KKNDQHBB.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
